#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"
#include "quant/row_codec.h"
#include "reference/arithmetic.h"
#include "reference/float_products.h"

namespace qat {

namespace {

constexpr int64_t kTileRows = 32;   // rows of a weight decoded at a time: they stay in the second-level cache
constexpr int64_t kQueryTile = 64;  // queries of a head whose scores exist at a time

// Rows of a weight as training's GEMM read them: values of block schemes are rounded to BF16, those of row schemes are
// exact.
void training_rows(const WeightView& weight, int64_t first, int64_t count, float* values) {
  const std::span<float> target(values, static_cast<size_t>(count * weight.columns()));
  decode_rows(weight, first, count, target);
  if (weight.scheme->granularity == Granularity::Block) round_to_bfloat16(target);
}

class FloatArithmetic final : public Arithmetic {
 public:
  explicit FloatArithmetic(ThreadPool& pool) : pool_(pool) {}

  Matrix gather(const WeightView& table, std::span<const int32_t> ids) const override {
    Matrix rows(static_cast<int64_t>(ids.size()), table.columns());
    for (int64_t i = 0; i < rows.rows(); ++i)
      training_rows(table, ids[static_cast<size_t>(i)], 1, row_of(rows, i).data());
    return rows;
  }

  Matrix linear(const Matrix& x, const WeightView& weight, bool) const override {
    QAT_CHECK(x.cols() == weight.columns());
    if (weight.edges == LinearScales{}) return product(x, weight);
    Matrix quantized = x;
    fake_quantize_edge(quantized, weight.edges.input);
    Matrix y = product(quantized, weight);
    fake_quantize_edge(y, weight.edges.output);
    return y;
  }

  void norm(Matrix& x, int64_t width, std::span<const float> weight, float epsilon) const override {
    const Eigen::Map<const Eigen::ArrayXf> factors(weight.data(), static_cast<int64_t>(weight.size()));
    pool_.run(x.rows(), [&](int64_t row) {
      for (int64_t start = 0; start < x.cols(); start += width) {
        Eigen::Map<Eigen::ArrayXf> group(x.data() + row * x.cols() + start, width);
        const float mean_square = group.square().mean() + epsilon;
        group *= std::pow(mean_square, -0.5f);
        if (!weight.empty()) group *= factors;
      }
    });
  }

  void rotate(Matrix& x, const RopeConfig& rope, int64_t first_position) const override {
    const std::vector<float> frequencies = rope.frequencies();
    const int64_t half = rope.head_dim / 2;
    pool_.run(x.rows(), [&](int64_t row) {
      const auto position = static_cast<float>(first_position + row);
      for (int64_t m = 0; m < rope.rotated_pairs; ++m) {
        const float angle = position * frequencies[static_cast<size_t>(m)];
        const float cosine = std::cos(angle);
        const float sine = std::sin(angle);
        for (int64_t start = 0; start < x.cols(); start += rope.head_dim) {
          const float left = x(row, start + m);
          const float right = x(row, start + m + half);
          x(row, start + m) = left * cosine - right * sine;
          x(row, start + m + half) = right * cosine + left * sine;
        }
      }
    });
  }

  void gate(Matrix& gate, const Eigen::Ref<const Matrix, 0, Eigen::OuterStride<>>& factor) const override {
    constexpr float kSlope = 0.7978845608028654f;  // sqrt(2 / pi)
    constexpr float kCubic = 0.044715f;
    pool_.run(gate.rows(), [&](int64_t row) {
      for (int64_t i = 0; i < gate.cols(); ++i) {
        const float value = gate(row, i);
        const float inner = kSlope * (value + kCubic * value * value * value);
        gate(row, i) = 0.5f * value * (1.0f + std::tanh(inner)) * factor(row, i);
      }
    });
  }

  Matrix attend(const Matrix& queries, const KeyValueCache& cache, const AttentionShape& shape) const override {
    Matrix result(queries.rows(), queries.cols());
    const int64_t tiles = (queries.rows() + kQueryTile - 1) / kQueryTile;
    pool_.run(shape.key_value_heads * tiles,
              [&](int64_t job) { attend_tile(queries, cache, shape, job / tiles, job % tiles * kQueryTile, result); });
    return result;
  }

  double exponentials(std::span<float> values, float largest) const override {
    double sum = 0;
    for (float& value : values) {
      value = std::exp(value - largest);
      sum += static_cast<double>(value);
    }
    return sum;
  }

  void softcap(Matrix& logits, float cap) const override {
    pool_.run(logits.rows(), [&](int64_t row) {
      for (float& value : row_of(logits, row)) value = std::tanh(value / cap) * cap;
    });
  }

 private:
  Matrix product(const Matrix& x, const WeightView& weight) const {
    Matrix y(x.rows(), weight.rows());
    const int64_t tiles = (weight.rows() + kTileRows - 1) / kTileRows;
    pool_.run(tiles, [&](int64_t tile) {
      const int64_t first = tile * kTileRows;
      const int64_t count = std::min(kTileRows, weight.rows() - first);
      Matrix rows(count, weight.columns());
      training_rows(weight, first, count, rows.data());
      multiply_tile(x.data(), x.rows(), rows.data(), count, weight.columns(), y.data() + first, y.cols());
    });
    return y;
  }

  // All query heads of one key-value head, for the queries [first_row, first_row + kQueryTile).
  static void attend_tile(const Matrix& queries, const KeyValueCache& cache, const AttentionShape& shape,
                          int64_t key_value_head, int64_t first_row, Matrix& result) {
    const int64_t rows = std::min(kQueryTile, queries.rows() - first_row);
    const int64_t first_query = shape.first_position + first_row;
    const int64_t end = first_query + rows;
    const int64_t begin = shape.first_visible(first_query);
    Matrix keys(end - begin, shape.head_dim);
    Matrix values(end - begin, shape.head_dim);
    for (int64_t i = begin; i < end; ++i) {
      cache.decode_key(i, key_value_head, row_of(keys, i - begin));
      cache.decode_value(i, key_value_head, row_of(values, i - begin));
    }
    const int64_t group = shape.heads / shape.key_value_heads;
    for (int64_t head = key_value_head * group; head < (key_value_head + 1) * group; ++head) {
      const auto columns = Eigen::seqN(head * shape.head_dim, shape.head_dim);
      const auto query_rows = Eigen::seqN(first_row, rows);
      Matrix scores = queries(query_rows, columns) * keys.transpose();
      for (int64_t i = 0; i < rows; ++i) soften(scores, i, first_query + i, begin, shape.window);
      result(query_rows, columns).noalias() = scores * values;
    }
  }

  // Softmax of one row of scores over the keys that its query sees.
  static void soften(Matrix& scores, int64_t row, int64_t query, int64_t begin, int64_t window) {
    const int64_t seen = window == 0 ? 0 : std::max<int64_t>(0, query - window + 1 - begin);
    const int64_t end = query + 1 - begin;
    auto visible = scores.row(row).segment(seen, end - seen).array();
    visible = (visible - visible.maxCoeff()).exp();
    visible /= visible.sum();
    scores.row(row).head(seen).setZero();
    scores.row(row).tail(scores.cols() - end).setZero();
  }

  ThreadPool& pool_;
};

}  // namespace

void fake_quantize_edge(Matrix& values, float scale) {
  if (scale == 0) return;
  const std::span<float> all(values.data(), static_cast<size_t>(values.size()));
  fake_quantize_group(Scheme::Int8, all, scale, all);
}

std::unique_ptr<Arithmetic> make_float_arithmetic(ThreadPool& pool) { return std::make_unique<FloatArithmetic>(pool); }

}  // namespace qat
