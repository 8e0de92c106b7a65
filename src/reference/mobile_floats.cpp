#include "reference/mobile_floats.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reference/mobile_floats.cpp"
#include <hwy/foreach_target.h>
// foreach_target must come first.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace qat::mobile::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Lanes of the vectors in whose order XNNPACK adds.
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
constexpr int64_t kLanes = 16;
#else
constexpr int64_t kLanes = 8;
#endif
using Lanes = std::array<float, kLanes>;

// a * b + c, rounded once.
HWY_INLINE float fused(float a, float b, float c) { return std::fma(a, b, c); }

// coefficients[0] x^n + ... + coefficients[n]
template <size_t kTerms>
HWY_INLINE float polynomial(float x, const std::array<float, kTerms>& coefficients) {
  float sum = coefficients[0];
  for (size_t i = 1; i < kTerms; ++i) sum = fused(x, sum, coefficients[i]);
  return sum;
}

HWY_INLINE void add_lanes(Lanes& sum, const float* values) {
  for (int64_t lane = 0; lane < kLanes; ++lane) sum[lane] += values[lane];
}
// The kernel for eight lanes is compiled without fused multiply-adds.
HWY_INLINE void add_squares(Lanes& sum, const float* values) {
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    const float value = values[lane];
    sum[lane] = kLanes == 16 ? fused(value, value, sum[lane]) : sum[lane] + value * value;
  }
}

// Halves onto each other until one number is left.
HWY_INLINE float add_halves(Lanes lanes) {
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

HWY_INLINE float sum_of_squares(std::span<const float> values) {
  std::array<Lanes, 4> sums{};
  const auto count = static_cast<int64_t>(values.size());
  int64_t i = 0;
  for (int64_t sum = 0; i + kLanes <= count; i += kLanes, sum = (sum + 1) % 4) add_squares(sums[sum], &values[i]);
  add_lanes(sums[0], sums[2].data());
  add_lanes(sums[1], sums[3].data());
  add_lanes(sums[0], sums[1].data());
  if (i < count) {
    Lanes rest{};
    std::copy(values.begin() + i, values.end(), rest.begin());
    add_squares(sums[0], rest.data());
  }
  return add_halves(sums[0]);
}

// An estimate from the processor and one step of Newton's method.
HWY_INLINE float inverse_root(float x) {
  if (x == std::numeric_limits<float>::infinity()) return 0.0f;
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  const hn::ScalableTag<float> tag;
  const float estimate = hn::GetLane(hn::ApproximateReciprocalSqrt(hn::Set(tag, x)));
  const float excess = x * (estimate * estimate) - 1.0f;
  return estimate - excess * (0.5f * estimate);
#else
  return 1.0f / std::sqrt(x);
#endif
}

void rms_norm(std::span<float> values, std::span<const float> weight, float epsilon) {
  const float mean = sum_of_squares(values) * (1.0f / static_cast<float>(values.size()));
  const float root = inverse_root(mean + epsilon);
  for (float& value : values) value *= root;
  for (size_t i = 0; i < weight.size(); ++i) values[i] *= weight[i];
}

// Angle less whole turns (fewer than 2^22 of them); 2 pi in two parts.
HWY_INLINE float within_a_turn(float angle) {
  constexpr float kWhole = 0x1.8p23f;  // no fraction is left beside it
  const float turns = (angle * 0.15915494f + kWhole) - kWhole;
  return fused(-turns, 1.9353072e-3f, fused(-turns, 6.28125f, angle));
}

// Sine of an angle in [-3 pi / 2, 3 pi / 2]: mirrored into [-pi / 2, pi / 2], then a quotient of two polynomials.
HWY_INLINE float sine_quotient(float angle) {
  constexpr float kPi = 3.1415927f;
  float x = std::min(angle, kPi - angle);
  x = std::max(x, -kPi - x);
  x = std::min(x, kPi - x);
  const float square = x * x;
  const float numerator = x * polynomial<3>(square, {3.2340581529e-03f, -1.3314664364e-01f, 1.0f});
  return numerator / polynomial<3>(square, {4.8770775902e-04f, 3.3519912511e-02f, 1.0f});
}

void sines(std::span<const float> angles, std::span<float> results) {
  for (size_t i = 0; i < angles.size(); ++i) results[i] = sine_quotient(within_a_turn(angles[i]));
}

void cosines(std::span<const float> angles, std::span<float> results) {
  constexpr float kQuarterHigh = 1.5707963705e+00f, kQuarterLow = -4.3711388e-08f;  // of a turn: pi / 2
  for (size_t i = 0; i < angles.size(); ++i) {
    results[i] = sine_quotient((kQuarterHigh - within_a_turn(angles[i])) + kQuarterLow);
  }
}

void gated_gelu(std::span<float> gate, std::span<const float> factor) {
  constexpr float kLimit = 4.84974098e+00f;  // beyond it the quotient is 1
  for (size_t i = 0; i < gate.size(); ++i) {
    const float x = std::max(-kLimit, std::min(kLimit, gate[i]));
    const float square = x * x;
    const float numerator = x * polynomial<6>(square, {4.9544411240e-08f, 1.4302649106e-05f, 2.6887017884e-04f,
                                                       7.2898347862e-03f, 6.0803253204e-02f, 7.9788458347e-01f});
    const float denominator = polynomial<6>(
        square, {1.3433452750e-06f, 7.6477612311e-05f, 1.3060354395e-03f, 2.4381054565e-02f, 2.4369759858e-01f, 1.0f});
    gate[i] = (gate[i] * 0.5f) * (numerator / denominator + 1.0f) * factor[i];
  }
}

void softcap(std::span<float> values, float cap) {
  constexpr float kLimit = 7.9807181358e+00f;  // beyond it tanh is 1
  const float inverse = 1.0f / cap;
  for (float& value : values) {
    const float x = std::max(-kLimit, std::min(kLimit, value * inverse));
    const float square = x * x;
    const float numerator =
        x * polynomial<5>(square, {1.4248920266e-08f, 2.1235626264e-05f, 3.5330520477e-03f, 1.3412411511e-01f, 1.0f});
    const float denominator =
        polynomial<5>(square, {8.1365948290e-07f, 3.3472978976e-04f, 2.6018999517e-02f, 4.6745735407e-01f, 1.0f});
    value = numerator / denominator * cap;
  }
}

// exp of x <= 0; 0 where it would be subnormal.
HWY_INLINE float exponential(float x) {
  constexpr float kRounding = 0x1.8000FEp23f;  // leaves a whole number with the bias of an exponent in the low bits
  if (x < -0x1.5D589Ep6f) return 0.0f;
  const float shifted = fused(x, 0x1.715476p+0f, kRounding);
  const float power = std::bit_cast<float>(std::bit_cast<uint32_t>(shifted) << 23);
  const float whole = shifted - kRounding;
  const float rest = fused(whole, -0x1.7F7D1Cp-20f, fused(whole, -0x1.62E400p-1f, x));
  const float series =
      polynomial<5>(rest, {0x1.0F9F9Cp-7f, 0x1.573A1Ap-5f, 0x1.555A80p-3f, 0x1.FFFDC6p-2f, 0x1.FFFFF6p-1f});
  return fused(rest * power, series, power);
}

// Groups of four vectors go into two sums in turn; what follows the last whole group goes into their sum.
HWY_INLINE float sum_of_row(std::span<const float> visible, int64_t first, int64_t length) {
  const int64_t grouped = length / (4 * kLanes) * (4 * kLanes);
  std::array<Lanes, 2> sums{};
  const auto add = [&](int64_t begin, int64_t end, bool alternates) {
    for (int64_t place = std::max(begin, first); place < end; ++place) {
      const int64_t sum = alternates ? place / kLanes % 2 : 0;
      sums[sum][place % kLanes] += visible[place - first];
    }
  };
  const int64_t end = first + static_cast<int64_t>(visible.size());
  add(0, std::min(grouped, end), true);
  add_lanes(sums[0], sums[1].data());
  add(grouped, end, false);
  return add_halves(sums[0]);
}

void softmax(std::span<float> visible, int64_t first, int64_t length) {
  const float largest = *std::max_element(visible.begin(), visible.end());
  for (float& score : visible) score = exponential(score - largest);
  const float inverse = 1.0f / sum_of_row(visible, first, length);
  for (float& share : visible) share *= inverse;
}

#if HWY_NATIVE_FMA

template <int kRows, int kVectors>
HWY_INLINE void multiply_block(const float* x, int64_t x_stride, int64_t inner, const float* matrix,
                               int64_t matrix_stride, float* outputs, int64_t output_stride) {
  const hn::ScalableTag<float> tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  hn::Vec<decltype(tag)> sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::Zero(tag);
  }
  for (int64_t i = 0; i < inner; ++i, matrix += matrix_stride) {
    hn::Vec<decltype(tag)> columns[kVectors];
    for (int v = 0; v < kVectors; ++v) columns[v] = hn::LoadU(tag, matrix + v * lanes);
    for (int r = 0; r < kRows; ++r) {
      const auto value = hn::Set(tag, x[r * x_stride + i]);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::MulAdd(value, columns[v], sums[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sums[r][v], tag, outputs + r * output_stride + v * lanes);
  }
}

// As many whole vectors as there are; -> columns done.
template <int kRows>
HWY_INLINE int64_t multiply_rows(const float* x, int64_t x_stride, int64_t inner, const float* matrix,
                                 int64_t matrix_stride, int64_t width, float* outputs, int64_t output_stride) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(hn::ScalableTag<float>()));
  int64_t column = 0;
  for (; column + 4 * lanes <= width; column += 4 * lanes) {
    multiply_block<kRows, 4>(x, x_stride, inner, matrix + column, matrix_stride, outputs + column, output_stride);
  }
  for (; column + lanes <= width; column += lanes) {
    multiply_block<kRows, 1>(x, x_stride, inner, matrix + column, matrix_stride, outputs + column, output_stride);
  }
  return column;
}

#else

template <int kRows>
HWY_INLINE int64_t multiply_rows(const float*, int64_t, int64_t, const float*, int64_t, int64_t, float*, int64_t) {
  return 0;
}

#endif

void multiply_in_order(const float* x, int64_t x_stride, int64_t rows, int64_t inner, const float* matrix,
                       int64_t matrix_stride, int64_t width, float* outputs, int64_t output_stride) {
  for (int64_t row = 0; row < rows;) {
    const int64_t taken = row + 4 <= rows ? 4 : 1;
    const float* values = x + row * x_stride;
    float* results = outputs + row * output_stride;
    const int64_t done =
        taken == 4 ? multiply_rows<4>(values, x_stride, inner, matrix, matrix_stride, width, results, output_stride)
                   : multiply_rows<1>(values, x_stride, inner, matrix, matrix_stride, width, results, output_stride);
    for (int64_t r = 0; r < taken; ++r) {
      for (int64_t column = done; column < width; ++column) {
        float sum = 0.0f;
        for (int64_t i = 0; i < inner; ++i) {
          sum = fused(values[r * x_stride + i], matrix[i * matrix_stride + column], sum);
        }
        results[r * output_stride + column] = sum;
      }
    }
    row += taken;
  }
}

}  // namespace qat::mobile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qat::mobile {

HWY_EXPORT(rms_norm);
HWY_EXPORT(cosines);
HWY_EXPORT(sines);
HWY_EXPORT(gated_gelu);
HWY_EXPORT(softcap);
HWY_EXPORT(softmax);
HWY_EXPORT(multiply_in_order);

void rms_norm(std::span<float> values, std::span<const float> weight, float epsilon) {
  HWY_DYNAMIC_DISPATCH(rms_norm)(values, weight, epsilon);
}

void cosines(std::span<const float> angles, std::span<float> results) {
  HWY_DYNAMIC_DISPATCH(cosines)(angles, results);
}

void sines(std::span<const float> angles, std::span<float> results) { HWY_DYNAMIC_DISPATCH(sines)(angles, results); }

void gated_gelu(std::span<float> gate, std::span<const float> factor) {
  HWY_DYNAMIC_DISPATCH(gated_gelu)(gate, factor);
}

void softcap(std::span<float> values, float cap) { HWY_DYNAMIC_DISPATCH(softcap)(values, cap); }

void softmax(std::span<float> visible, int64_t first, int64_t length) {
  HWY_DYNAMIC_DISPATCH(softmax)(visible, first, length);
}

void multiply_in_order(const float* x, int64_t x_stride, int64_t rows, int64_t inner, const float* matrix,
                       int64_t matrix_stride, int64_t width, float* outputs, int64_t output_stride) {
  HWY_DYNAMIC_DISPATCH(multiply_in_order)
  (x, x_stride, rows, inner, matrix, matrix_stride, width, outputs, output_stride);
}

}  // namespace qat::mobile
#endif
