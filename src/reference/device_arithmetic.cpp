// llama.cpp's CPU backend, bit for bit where the comments do not say otherwise: builds for x86-64 with AVX2, FMA and
// F16C and without AVX-512, weights in CPU_REPACK buffers where it has a layout for them (Q4_0 as 8x8), tinyBLAS for
// the other types where several tokens come at once, ggml_vec_dot for single tokens. Expressions that GCC contracts in
// such builds are written as std::fma here.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <vector>

#include "core/error.h"
#include "core/float_types.h"
#include "quant/block_codec.h"
#include "reference/arithmetic.h"
#include "reference/device_activations.h"
#include "reference/device_attention.h"
#include "reference/device_dots.h"
#include "reference/device_weights.h"

namespace qat {

namespace {

constexpr int64_t kRowsPerJob = 32;    // rows of a weight that one thread takes at a time
constexpr int64_t kTiledQueries = 64;  // llama.cpp's flash attention works in tiles from this many queries on
constexpr int64_t kQueryTile = 64;

// gelu_tanh of every fp16 number, rounded to fp16 (ggml_table_gelu_f16).
std::vector<float> make_gelu_table() {
  std::vector<float> table;
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const float x = to_float(Float16{static_cast<uint16_t>(bits)});
    const float inner = 0.79788456080286535588f * x * std::fma(0.044715f * x, x, 1.0f);
    table.push_back(to_float(to_float16(0.5f * x * (1.0f + std::tanh(inner)))));
  }
  return table;
}

class DeviceArithmetic final : public Arithmetic {
 public:
  explicit DeviceArithmetic(ThreadPool& pool) : pool_(pool), gelu_table_(make_gelu_table()) {}

  Matrix gather(const WeightView& table, std::span<const int32_t> ids) const override {
    Matrix rows(static_cast<int64_t>(ids.size()), table.columns());
    for (int64_t i = 0; i < rows.rows(); ++i) {
      decode_rows(table, ids[static_cast<size_t>(i)], 1, row_of(rows, i));
    }
    return rows;
  }

  Matrix linear(const Matrix& x, const WeightView& weight, bool row_by_row) const override {
    QAT_CHECK(x.cols() == weight.columns());
    switch (weight.scheme->id) {
      case Scheme::Q4_0:
        return weight.rows() % kInterleavedRows == 0 ? linear_interleaved(x, weight) : linear_codes(x, weight);
      case Scheme::Q8_0:
        return linear_codes(x, weight);
      case Scheme::Q6_K:
        return linear_super_blocks(x, weight);
      case Scheme::F32:
      case Scheme::F16:
      case Scheme::BF16:
        return linear_floats(x, weight, row_by_row);
      case Scheme::Int2:
      case Scheme::Int4:
      case Scheme::Int8:
        break;  // no GGUF file holds them
    }
    QAT_CHECK(false);
    return {};
  }

  void norm(Matrix& x, int64_t width, std::span<const float> weight, float epsilon) const override {
    pool_.run(x.rows(), [&](int64_t row) {
      for (int64_t start = 0; start < x.cols(); start += width) {
        float* group = x.data() + row * x.cols() + start;
        double sum = 0;
        for (int64_t i = 0; i < width; ++i) sum += static_cast<double>(group[i] * group[i]);
        const auto mean = static_cast<float>(sum / static_cast<double>(width));
        const float scale = 1.0f / std::sqrt(mean + epsilon);
        for (int64_t i = 0; i < width; ++i) {
          group[i] *= scale;
          if (!weight.empty()) group[i] *= weight[static_cast<size_t>(i)];
        }
      }
    });
  }

  void rotate(Matrix& x, const RopeConfig& rope, int64_t first_position) const override {
    const int64_t half = rope.head_dim / 2;
    const float ratio = std::pow(static_cast<float>(rope.theta), -2.0f / static_cast<float>(rope.head_dim));
    const auto frequency_scale = static_cast<float>(1.0 / rope.factor);
    pool_.run(x.rows(), [&](int64_t row) {
      auto angle = static_cast<float>(first_position + row);
      for (int64_t m = 0; m < rope.rotated_pairs; ++m, angle *= ratio) {
        const float cosine = std::cos(frequency_scale * angle);
        const float sine = std::sin(frequency_scale * angle);
        for (int64_t start = 0; start < x.cols(); start += rope.head_dim) {
          const float left = x(row, start + m);
          const float right = x(row, start + m + half);
          x(row, start + m) = std::fma(left, cosine, -(right * sine));
          x(row, start + m + half) = std::fma(left, sine, right * cosine);
        }
      }
    });
  }

  void gate(Matrix& gate, const Eigen::Ref<const Matrix, 0, Eigen::OuterStride<>>& factor) const override {
    pool_.run(gate.rows(), [&](int64_t row) {
      for (int64_t i = 0; i < gate.cols(); ++i) gate(row, i) = gelu(gate(row, i)) * factor(row, i);
    });
  }

  Matrix attend(const Matrix& queries, const KeyValueCache& cache, const AttentionShape& shape) const override {
    Matrix result(queries.rows(), queries.cols());
    const bool tiled = cache.type() != CacheType::Q8_0 && queries.rows() >= kTiledQueries;
    const int64_t tiles = (queries.rows() + kQueryTile - 1) / kQueryTile;
    pool_.run(shape.key_value_heads * tiles, [&](int64_t job) {
      const int64_t first = job % tiles * kQueryTile;
      device::attend_group(queries, cache, shape, job / tiles, first, std::min(first + kQueryTile, queries.rows()),
                           tiled, result);
    });
    return result;
  }

  double exponentials(std::span<float> values, float largest) const override {
    return device::soft_max_exponentials(values, largest);
  }

  void softcap(Matrix& logits, float cap) const override {
    const float inverse = 1.0f / cap;
    pool_.run(logits.rows(), [&](int64_t row) {
      for (float& value : row_of(logits, row)) value = std::tanh(value * inverse) * cap;
    });
  }

 private:
  float gelu(float x) const {
    if (x <= -10.0f) return 0.0f;
    if (x >= 10.0f) return x;
    return gelu_table_[to_float16(x).bits];
  }

  // Calls body(first, end) for ranges of weight rows, `step` rows or multiples of it each.
  void for_rows(int64_t rows, const std::function<void(int64_t, int64_t)>& body) const {
    pool_.run((rows + kRowsPerJob - 1) / kRowsPerJob,
              [&](int64_t job) { body(job * kRowsPerJob, std::min((job + 1) * kRowsPerJob, rows)); });
  }

  Matrix linear_interleaved(const Matrix& x, const WeightView& weight) const {
    const QuantizedRows activations = quantize_q8_0(x, CodeOrder::Natural);
    Matrix y(x.rows(), weight.rows());
    for_rows(weight.rows(), [&](int64_t first, int64_t end) {
      InterleavedTile tile;
      for (int64_t row = first; row < end; row += kInterleavedRows) {
        unpack_interleaved(weight, row, tile);
        for (int64_t token = 0; token < x.rows(); ++token) {
          device::dot_interleaved(tile, activations, token, y.data() + token * y.cols() + row);
        }
      }
    });
    return y;
  }

  Matrix linear_codes(const Matrix& x, const WeightView& weight) const {
    const QuantizedRows activations = quantize_q8_0(x, CodeOrder::Quads);
    Matrix y(x.rows(), weight.rows());
    for_rows(weight.rows(), [&](int64_t first, int64_t end) {
      CodeRow codes;
      for (int64_t row = first; row < end; ++row) {
        unpack_codes(weight, row, codes);
        for (int64_t token = 0; token < x.rows(); ++token) y(token, row) = device::dot_codes(codes, activations, token);
      }
    });
    return y;
  }

  // The order of single tokens; llama.cpp's kernel for many tokens at once (tables as matrices of a batch) adds
  // otherwise.
  Matrix linear_super_blocks(const Matrix& x, const WeightView& weight) const {
    const QuantizedRows activations = quantize_q8_k(x);
    Matrix y(x.rows(), weight.rows());
    for_rows(weight.rows(), [&](int64_t first, int64_t end) {
      SuperBlockRow codes;
      for (int64_t row = first; row < end; ++row) {
        unpack_super_blocks(weight, row, codes);
        for (int64_t token = 0; token < x.rows(); ++token)
          y(token, row) = device::dot_super_blocks(codes, activations, token);
      }
    });
    return y;
  }

  Matrix linear_floats(const Matrix& x, const WeightView& weight, bool row_by_row) const {
    const Scheme type = weight.scheme->id;
    Matrix rounded = x;
    if (type == Scheme::F16) rounded = x.unaryExpr([](float value) { return to_float(to_float16(value)); });
    if (type == Scheme::BF16) rounded = x.unaryExpr([](float value) { return to_float(to_bfloat16(value)); });
    const bool tiny_blas = !row_by_row && x.rows() >= 2 && x.cols() % 8 == 0 && weight.rows() % 4 == 0;
    const device::SumOrder single =
        type == Scheme::BF16 ? device::SumOrder::FourVectorsBF16 : device::SumOrder::FourVectors;
    const device::SumOrder order = tiny_blas ? device::SumOrder::OneVector : single;
    Matrix y(x.rows(), weight.rows());
    for_rows(weight.rows(), [&](int64_t first, int64_t end) {
      std::vector<float> decoded(static_cast<size_t>(weight.columns()));
      for (int64_t row = first; row < end; ++row) {
        decode_blocks(type, weight.row_blocks(row), decoded);
        for (int64_t token = 0; token < x.rows(); ++token) {
          y(token, row) =
              device::dot_floats(decoded.data(), row_of(rounded, token).data(), x.cols(), order, type != Scheme::F32);
        }
      }
    });
    return y;
  }

  ThreadPool& pool_;
  std::vector<float> gelu_table_;
};

}  // namespace

std::unique_ptr<Arithmetic> make_device_arithmetic(ThreadPool& pool) {
  return std::make_unique<DeviceArithmetic>(pool);
}

}  // namespace qat
