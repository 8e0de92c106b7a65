#include <array>
#include <cmath>

#include "core/float_types.h"
#include "quant/grid.h"
#include "reference/device_dots.h"

namespace qat::device::scalar {

namespace {

using Lanes = std::array<float, 8>;

// (r0 + r2) + (r1 + r3) with r_i = l_{i+4} + l_i: how the quantized kernels, tinyBLAS and the BF16 kernel end.
float add_halves_first(const Lanes& lanes) {
  std::array<float, 4> r;
  for (size_t i = 0; i < 4; ++i) r[i] = lanes[i + 4] + lanes[i];
  return (r[0] + r[2]) + (r[1] + r[3]);
}

// (r0 + r1) + (r2 + r3): how the F32 and F16 kernels end.
float add_neighbours_first(const Lanes& lanes) {
  std::array<float, 4> r;
  for (size_t i = 0; i < 4; ++i) r[i] = lanes[i + 4] + lanes[i];
  return (r[0] + r[1]) + (r[2] + r[3]);
}

// Sum of the four products of quad `lane` of a block in quad order.
int32_t quad_dot(const int16_t* a, const int16_t* b, size_t lane) {
  int32_t sum = 0;
  for (const size_t i : {2 * lane, 2 * lane + 1, 2 * lane + 16, 2 * lane + 17}) sum += int32_t{a[i]} * int32_t{b[i]};
  return sum;
}

}  // namespace

void dot_interleaved(const InterleavedTile& tile, const QuantizedRows& x, int64_t token, float* outputs) {
  for (int64_t row = 0; row < kInterleavedRows; ++row) {
    float sum = 0.0f;
    for (int64_t b = 0; b < tile.blocks; ++b) {
      const int16_t* codes = tile.codes.data() + b * grid::kBlock * kInterleavedRows;
      int32_t dot = 0;
      for (int64_t i = 0; i < grid::kBlock; ++i) {
        dot += int32_t{codes[i / 2 * 2 * kInterleavedRows + row * 2 + i % 2]} *
               int32_t{x.row_codes(token)[b * grid::kBlock + i]};
      }
      const float scale = tile.scales[static_cast<size_t>(b * kInterleavedRows + row)] * x.row_scales(token)[b];
      sum = std::fma(static_cast<float>(dot), scale, sum);
    }
    outputs[row] = sum;
  }
}

float dot_codes(const CodeRow& row, const QuantizedRows& x, int64_t token) {
  Lanes lanes{};
  for (int64_t b = 0; b < row.blocks; ++b) {
    const float scale = row.scales[static_cast<size_t>(b)] * x.row_scales(token)[b];
    const int16_t* codes = row.codes.data() + b * grid::kBlock;
    for (size_t l = 0; l < lanes.size(); ++l) {
      const int32_t dot = quad_dot(codes, x.row_codes(token) + b * grid::kBlock, l);
      lanes[l] = std::fma(scale, static_cast<float>(dot), lanes[l]);
    }
  }
  return add_halves_first(lanes);
}

float dot_super_blocks(const SuperBlockRow& row, const QuantizedRows& x, int64_t token) {
  Lanes lanes{};
  for (int64_t b = 0; b < row.blocks; ++b) {
    const float scale = x.row_scales(token)[b] * row.scales[static_cast<size_t>(b)];
    const int16_t* codes = row.codes.data() + b * grid::kSuperBlock;
    const int16_t* activations = x.row_codes(token) + b * grid::kSuperBlock;
    const int32_t* sub_scales = row.sub_scales.data() + b * 16;
    const int32_t* sums = x.row_sums(token) + b * 16;
    for (size_t l = 0; l < lanes.size(); ++l) {
      // The offset of 32 is taken off by the sums of the activations: lane l has those of groups 2l and 2l + 1.
      int32_t dot = -32 * (sums[2 * l] * sub_scales[2 * l] + sums[2 * l + 1] * sub_scales[2 * l + 1]);
      for (size_t run = 0; run < 8; ++run) {
        dot += sub_scales[2 * run + l / 4] * quad_dot(codes + run * grid::kBlock, activations + run * grid::kBlock, l);
      }
      lanes[l] = std::fma(scale, static_cast<float>(dot), lanes[l]);
    }
  }
  return add_halves_first(lanes);
}

float dot_floats(const float* a, const float* b, int64_t count, SumOrder order, bool double_tail) {
  const int64_t vectors = order == SumOrder::OneVector ? 1 : 4;
  const int64_t whole = count / (8 * vectors) * 8 * vectors;
  std::array<Lanes, 4> sums{};
  for (int64_t i = 0; i < whole; ++i) {
    float& sum = sums[static_cast<size_t>(i / 8 % vectors)][static_cast<size_t>(i % 8)];
    sum = std::fma(a[i], b[i], sum);
  }
  if (order != SumOrder::OneVector) {
    for (size_t l = 0; l < 8; ++l) sums[0][l] = (sums[0][l] + sums[2][l]) + (sums[1][l] + sums[3][l]);
  }
  const float sum = order == SumOrder::FourVectors ? add_neighbours_first(sums[0]) : add_halves_first(sums[0]);
  if (double_tail) {
    double wide = static_cast<double>(sum);
    for (int64_t i = whole; i < count; ++i) wide += static_cast<double>(a[i] * b[i]);
    return static_cast<float>(wide);
  }
  float narrow = sum;
  const int64_t eights = count / 8 * 8;
  for (int64_t i = whole; i < eights; ++i) narrow += a[i] * b[i];
  for (int64_t i = eights; i < count; ++i) narrow = std::fma(a[i], b[i], narrow);
  return narrow;
}

void add_scaled(float* sum, const float* values, float factor, int64_t count, bool half) {
  for (int64_t i = 0; i < count; ++i) {
    sum[i] = std::fma(values[i], factor, sum[i]);
    if (half) sum[i] = to_float(to_float16(sum[i]));
  }
}

}  // namespace qat::device::scalar
