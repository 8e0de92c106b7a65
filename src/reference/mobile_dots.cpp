#include "reference/mobile_dots.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reference/mobile_dots.cpp"
#include <hwy/foreach_target.h>
// foreach_target must come first.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace qat::mobile::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Codes = hn::ScalableTag<int16_t>;
using Sums = hn::RepartitionToWide<Codes>;

// A block of outputs small enough that all its sums stay in registers.
template <int kTokens, int kRows>
HWY_INLINE void multiply_block(const int16_t* x, const int16_t* weights, int64_t columns, int32_t* outputs,
                               int64_t stride) {
  const Codes codes;
  const Sums wide;
  const auto lanes = static_cast<int64_t>(hn::Lanes(codes));
  const int64_t whole = columns / lanes * lanes;
  hn::Vec<Sums> sums[kRows][kTokens];
  hn::Vec<Sums> others[kRows][kTokens];  // the second sum of processors that widen into two vectors
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) sums[r][t] = others[r][t] = hn::Zero(wide);
  }
  for (int64_t k = 0; k < whole; k += lanes) {
    hn::Vec<Codes> tokens[kTokens];
    for (int t = 0; t < kTokens; ++t) tokens[t] = hn::LoadU(codes, x + t * columns + k);
    for (int r = 0; r < kRows; ++r) {
      const auto weight = hn::LoadU(codes, weights + r * columns + k);
      for (int t = 0; t < kTokens; ++t) {
        sums[r][t] = hn::ReorderWidenMulAccumulate(wide, weight, tokens[t], sums[r][t], others[r][t]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) {
      int32_t sum = hn::GetLane(hn::SumOfLanes(wide, hn::Add(sums[r][t], others[r][t])));
      for (int64_t k = whole; k < columns; ++k) sum += weights[r * columns + k] * x[t * columns + k];
      outputs[t * stride + r] = sum;
    }
  }
}

template <int kTokens>
HWY_INLINE void multiply_tokens(const int16_t* x, const int16_t* weights, int64_t rows, int64_t columns,
                                int32_t* outputs, int64_t stride) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4) {
    multiply_block<kTokens, 4>(x, weights + row * columns, columns, outputs + row, stride);
  }
  for (; row < rows; ++row) multiply_block<kTokens, 1>(x, weights + row * columns, columns, outputs + row, stride);
}

void multiply_codes(const int16_t* x, int64_t tokens, const int16_t* weights, int64_t rows, int64_t columns,
                    int32_t* sums, int64_t stride) {
  int64_t token = 0;
  for (; token + 3 <= tokens; token += 3) {
    multiply_tokens<3>(x + token * columns, weights, rows, columns, sums + token * stride, stride);
  }
  for (; token < tokens; ++token) {
    multiply_tokens<1>(x + token * columns, weights, rows, columns, sums + token * stride, stride);
  }
}

}  // namespace qat::mobile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qat::mobile {

HWY_EXPORT(multiply_codes);

void multiply_codes(const int16_t* x, int64_t tokens, const int16_t* weights, int64_t rows, int64_t columns,
                    int32_t* sums, int64_t stride) {
  HWY_DYNAMIC_DISPATCH(multiply_codes)(x, tokens, weights, rows, columns, sums, stride);
}

}  // namespace qat::mobile
#endif
