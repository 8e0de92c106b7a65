#include "reference/float_products.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reference/float_products.cpp"
#include <hwy/foreach_target.h>
// foreach_target must come first.
#include <hwy/highway.h>

#include <algorithm>

#include "core/float_types.h"

HWY_BEFORE_NAMESPACE();
namespace qat::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;
using Words = hn::RebindToUnsigned<Floats>;

void round_to_bfloat16(float* values, int64_t count) {
  const Floats floats;
  const Words words;
  const auto lanes = static_cast<int64_t>(hn::Lanes(floats));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto value = hn::LoadU(floats, values + i);
    const auto bits = hn::BitCast(words, value);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(words, 1u));
    const auto rounded = hn::And(hn::Add(bits, hn::Add(odd, hn::Set(words, 0x7fffu))), hn::Set(words, 0xffff0000u));
    hn::StoreU(hn::IfThenElse(hn::IsNaN(value), value, hn::BitCast(floats, rounded)), floats, values + i);
  }
  for (; i < count; ++i) values[i] = to_float(to_bfloat16(values[i]));
}

// A block of outputs small enough that all its sums stay in registers.
template <int kTokens, int kRows>
HWY_INLINE void multiply_block(const float* x, const float* weights, int64_t columns, float* outputs, int64_t stride) {
  const Floats floats;
  const auto lanes = static_cast<int64_t>(hn::Lanes(floats));
  const int64_t whole = columns / lanes * lanes;
  hn::Vec<Floats> sums[kRows][kTokens];
  for (auto& row : sums) {
    for (auto& sum : row) sum = hn::Zero(floats);
  }
  for (int64_t k = 0; k < whole; k += lanes) {
    hn::Vec<Floats> tokens[kTokens];
    for (int t = 0; t < kTokens; ++t) tokens[t] = hn::LoadU(floats, x + t * columns + k);
    for (int r = 0; r < kRows; ++r) {
      const auto weight = hn::LoadU(floats, weights + r * columns + k);
      for (int t = 0; t < kTokens; ++t) sums[r][t] = hn::MulAdd(weight, tokens[t], sums[r][t]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) {
      float sum = hn::GetLane(hn::SumOfLanes(floats, sums[r][t]));
      for (int64_t k = whole; k < columns; ++k) sum += weights[r * columns + k] * x[t * columns + k];
      outputs[t * stride + r] = sum;
    }
  }
}

template <int kTokens>
HWY_INLINE void multiply_tokens(const float* x, const float* weights, int64_t rows, int64_t columns, float* outputs,
                                int64_t stride) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4) {
    multiply_block<kTokens, 4>(x, weights + row * columns, columns, outputs + row, stride);
  }
  for (; row < rows; ++row) multiply_block<kTokens, 1>(x, weights + row * columns, columns, outputs + row, stride);
}

void multiply_tile(const float* x, int64_t tokens, const float* weights, int64_t rows, int64_t columns, float* outputs,
                   int64_t stride) {
  int64_t token = 0;
  for (; token + 3 <= tokens; token += 3) {
    multiply_tokens<3>(x + token * columns, weights, rows, columns, outputs + token * stride, stride);
  }
  for (; token < tokens; ++token) {
    multiply_tokens<1>(x + token * columns, weights, rows, columns, outputs + token * stride, stride);
  }
}

}  // namespace qat::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qat {

HWY_EXPORT(round_to_bfloat16);
HWY_EXPORT(multiply_tile);

void round_to_bfloat16(std::span<float> values) {
  HWY_DYNAMIC_DISPATCH(round_to_bfloat16)(values.data(), static_cast<int64_t>(values.size()));
}

void multiply_tile(const float* x, int64_t tokens, const float* weights, int64_t rows, int64_t columns, float* outputs,
                   int64_t output_stride) {
  HWY_DYNAMIC_DISPATCH(multiply_tile)(x, tokens, weights, rows, columns, outputs, output_stride);
}

}  // namespace qat
#endif
