#include <algorithm>

#include "core/error.h"
#include "reference/arithmetic.h"
#include "reference/mobile_floats.h"
#include "reference/mobile_products.h"

namespace qat {

namespace {

constexpr int64_t kTileRows = 64;   // rows of an fp32 weight that are turned into columns at a time
constexpr int64_t kQueryTile = 64;  // queries of a head whose scores exist at a time

class MobileDeviceArithmetic final : public Arithmetic {
 public:
  MobileDeviceArithmetic(ThreadPool& pool, int64_t context)
      : pool_(pool), floats_(make_float_arithmetic(pool)), context_(context) {}

  Matrix gather(const WeightView& table, std::span<const int32_t> ids) const override {
    return floats_->gather(table, ids);
  }

  Matrix linear(const Matrix& x, const WeightView& weight, bool) const override {
    const LinearScales edges = weight.edges;
    const bool has_codes = weight.scheme->has_row_scales();
    if (has_codes && edges.input != 0 && edges.output != 0) return mobile::static_product(x, weight, pool_);
    // An edge that was never calibrated has no QUANTIZE in the graph: the product is a dynamic one.
    Matrix input = x;
    fake_quantize_edge(input, edges.input);
    Matrix y = has_codes ? mobile::dynamic_product(input, weight, pool_) : float_product(input, weight);
    fake_quantize_edge(y, edges.output);
    return y;
  }

  void norm(Matrix& x, int64_t width, std::span<const float> weight, float epsilon) const override {
    pool_.run(x.rows(), [&](int64_t row) {
      const std::span<float> values = row_of(x, row);
      for (int64_t start = 0; start < x.cols(); start += width) {
        mobile::rms_norm(values.subspan(static_cast<size_t>(start), static_cast<size_t>(width)), weight, epsilon);
      }
    });
  }

  void rotate(Matrix& x, const RopeConfig& rope, int64_t first_position) const override {
    const std::vector<float> frequencies = rope.frequencies();
    const int64_t half = rope.head_dim / 2;
    pool_.run(x.rows(), [&](int64_t row) {
      const auto position = static_cast<float>(first_position + row);
      std::vector<float> angles(frequencies), cosines(frequencies.size()), sines(frequencies.size());
      for (float& angle : angles) angle *= position;
      mobile::cosines(angles, cosines);
      mobile::sines(angles, sines);
      for (int64_t start = 0; start < x.cols(); start += rope.head_dim) {
        for (int64_t m = 0; m < half; ++m) {
          const float cosine = cosines[static_cast<size_t>(m)], sine = sines[static_cast<size_t>(m)];
          const float left = x(row, start + m), right = x(row, start + m + half);
          x(row, start + m) = left * cosine - right * sine;
          x(row, start + m + half) = right * cosine + left * sine;
        }
      }
    });
  }

  void gate(Matrix& gate, const Eigen::Ref<const Matrix, 0, Eigen::OuterStride<>>& factor) const override {
    pool_.run(gate.rows(), [&](int64_t row) {
      mobile::gated_gelu(row_of(gate, row), {factor.row(row).data(), static_cast<size_t>(gate.cols())});
    });
  }

  Matrix attend(const Matrix& queries, const KeyValueCache& cache, const AttentionShape& shape) const override {
    Matrix result(queries.rows(), queries.cols());
    const int64_t tiles = (queries.rows() + kQueryTile - 1) / kQueryTile;
    pool_.run(shape.key_value_heads * tiles,
              [&](int64_t job) { attend_tile(queries, cache, shape, job / tiles, job % tiles * kQueryTile, result); });
    return result;
  }

  // Of experts, which no .litertlm file has.
  double exponentials(std::span<float> values, float largest) const override {
    return floats_->exponentials(values, largest);
  }

  void softcap(Matrix& logits, float cap) const override {
    pool_.run(logits.rows(), [&](int64_t row) { mobile::softcap(row_of(logits, row), cap); });
  }

 private:
  Matrix float_product(const Matrix& x, const WeightView& weight) const {
    QAT_CHECK(x.cols() == weight.columns());
    Matrix y(x.rows(), weight.rows());
    pool_.run((weight.rows() + kTileRows - 1) / kTileRows, [&](int64_t tile) {
      const int64_t first = tile * kTileRows, count = std::min(kTileRows, weight.rows() - first);
      Matrix rows(count, weight.columns());
      decode_rows(weight, first, count, {rows.data(), static_cast<size_t>(rows.size())});
      const Matrix columns = rows.transpose();
      mobile::multiply_in_order(x.data(), x.cols(), x.rows(), x.cols(), columns.data(), count, count, y.data() + first,
                                y.cols());
    });
    return y;
  }

  // All query heads of one key-value head, for the queries [first_row, first_row + kQueryTile). Products are of the
  // cache's codes; its scale multiplies their sums (XNNPACK makes an int8 GEMM of DEQUANTIZE and BATCH_MATMUL).
  void attend_tile(const Matrix& queries, const KeyValueCache& cache, const AttentionShape& shape,
                   int64_t key_value_head, int64_t first_row, Matrix& result) const {
    const int64_t rows = std::min(kQueryTile, queries.rows() - first_row);
    const int64_t first_query = shape.first_position + first_row;
    const int64_t end = first_query + rows;
    const int64_t begin = shape.first_visible(first_query);
    Matrix keys(shape.head_dim, end - begin), values(end - begin, shape.head_dim);
    std::vector<float> key(static_cast<size_t>(shape.head_dim));
    for (int64_t i = begin; i < end; ++i) {
      decode_cached(cache.type(), cache.key(i, key_value_head), 1, key);
      keys.col(i - begin) = Eigen::Map<const Eigen::VectorXf>(key.data(), shape.head_dim);
      decode_cached(cache.type(), cache.value(i, key_value_head), 1, row_of(values, i - begin));
    }
    const int64_t group = shape.heads / shape.key_value_heads;
    Matrix scores(rows, end - begin);
    for (int64_t head = key_value_head * group; head < (key_value_head + 1) * group; ++head) {
      const int64_t start = first_row * queries.cols() + head * shape.head_dim;
      mobile::multiply_in_order(queries.data() + start, queries.cols(), rows, shape.head_dim, keys.data(), keys.cols(),
                                keys.cols(), scores.data(), scores.cols());
      scores *= cache.scales().key;
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t seen = shape.first_visible(first_query + row), count = first_query + row + 1 - seen;
        const std::span<float> visible = row_of(scores, row).subspan(static_cast<size_t>(seen - begin));
        mobile::softmax(visible.first(static_cast<size_t>(count)), seen, context_);
        mobile::multiply_in_order(visible.data(), 0, 1, count, values.data() + (seen - begin) * values.cols(),
                                  values.cols(), values.cols(), result.data() + start + row * result.cols(), 0);
      }
      result.block(first_row, head * shape.head_dim, rows, shape.head_dim) *= cache.scales().value;
    }
  }

  ThreadPool& pool_;
  std::unique_ptr<Arithmetic> floats_;
  int64_t context_;
};

}  // namespace

std::unique_ptr<Arithmetic> make_mobile_device_arithmetic(ThreadPool& pool, int64_t context) {
  return std::make_unique<MobileDeviceArithmetic>(pool, context);
}

}  // namespace qat
