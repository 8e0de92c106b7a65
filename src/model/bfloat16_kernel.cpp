#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "model/bfloat16_kernel.cpp"
// clang-format off
#include <hwy/foreach_target.h>  // must come first
// clang-format on
#include <hwy/contrib/math/math-inl.h>

#include <algorithm>
#include <cmath>

#include "model/bfloat16_kernels.h"
#include "quant/vector_loads-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qat::HWY_NAMESPACE {

HWY_INLINE int64_t lanes() { return static_cast<int64_t>(hn::Lanes(Floats())); }

HWY_INLINE FloatVector rounded(FloatVector value) {
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(bfloat16_bits(value)));
}

float rms_norm(const BFloat16* x, int64_t width, const float* factors, double epsilon, BFloat16* result) {
  const Floats tag;
  FloatVector squares = hn::Zero(tag);
  int64_t i = 0;
  for (; i + lanes() <= width; i += lanes()) {
    const FloatVector values = load_values(x + i);
    squares = hn::MulAdd(values, values, squares);
  }
  float sum = hn::GetLane(hn::SumOfLanes(tag, squares));
  for (; i < width; ++i) sum += to_float(x[i]) * to_float(x[i]);
  const float inverse = 1 / std::sqrt(sum / static_cast<float>(width) + static_cast<float>(epsilon));
  const FloatVector scale = hn::Set(tag, inverse);
  for (i = 0; i + lanes() <= width; i += lanes()) {
    store_bfloat16(hn::Mul(hn::Mul(load_values(x + i), scale), hn::LoadU(tag, factors + i)), result + i);
  }
  for (; i < width; ++i) result[i] = to_bfloat16(to_float(x[i]) * inverse * factors[i]);
  return inverse;
}

void rms_norm_backward(const BFloat16* x, const BFloat16* gradient, int64_t width, const float* factors, float inverse,
                       BFloat16* of_x, float* of_factors) {
  const Floats tag;
  const FloatVector scale = hn::Set(tag, inverse);
  FloatVector products = hn::Zero(tag);
  int64_t i = 0;
  for (; i + lanes() <= width; i += lanes()) {
    const FloatVector of_result = load_values(gradient + i);
    const FloatVector along = hn::Mul(of_result, hn::Mul(load_values(x + i), scale));
    if (of_factors != nullptr) hn::StoreU(hn::Add(hn::LoadU(tag, of_factors + i), along), tag, of_factors + i);
    products = hn::MulAdd(along, hn::LoadU(tag, factors + i), products);
  }
  float sum = hn::GetLane(hn::SumOfLanes(tag, products));
  for (; i < width; ++i) {
    const float along = to_float(gradient[i]) * (to_float(x[i]) * inverse);
    if (of_factors != nullptr) of_factors[i] += along;
    sum += along * factors[i];
  }
  if (of_x == nullptr) return;
  const float mean = sum / static_cast<float>(width);
  const FloatVector means = hn::Set(tag, mean);
  for (i = 0; i + lanes() <= width; i += lanes()) {
    const FloatVector normed = hn::Mul(load_values(x + i), scale);
    const FloatVector of_normed = hn::Mul(load_values(gradient + i), hn::LoadU(tag, factors + i));
    store_bfloat16(hn::Mul(hn::Sub(of_normed, hn::Mul(normed, means)), scale), of_x + i);
  }
  for (; i < width; ++i) {
    of_x[i] = to_bfloat16((to_float(gradient[i]) * factors[i] - to_float(x[i]) * inverse * mean) * inverse);
  }
}

// gelu_tanh(x) = x s with s = (1 + tanh u) / 2 = 1 / (1 + exp(-2 u)) and u = sqrt(2 / pi) (x + 0.044715 x^3).
struct Gelu {
  FloatVector value;
  FloatVector slope;
};

HWY_INLINE Gelu gelu_of(FloatVector x) {
  const Floats tag;
  const FloatVector one = hn::Set(tag, 1.0f);
  const FloatVector twice_root = hn::Set(tag, 1.5957691216057308f);  // 2 sqrt(2 / pi)
  const FloatVector cubic = hn::Set(tag, 0.044715f);
  const FloatVector square = hn::Mul(x, x);
  const FloatVector twice_u = hn::Mul(hn::Mul(twice_root, x), hn::MulAdd(cubic, square, one));
  // Beyond 80 the sigmoid is nothing beside BF16's digits, and exp stays finite.
  const FloatVector power = hn::Exp(tag, hn::Min(hn::Neg(twice_u), hn::Set(tag, 80.0f)));
  const FloatVector sigmoid = hn::Div(one, hn::Add(one, power));
  const FloatVector slope_of_u = hn::Mul(twice_root, hn::MulAdd(hn::Set(tag, 3 * 0.044715f), square, one));
  const FloatVector rest = hn::Mul(power, sigmoid);  // 1 - sigmoid
  return {hn::Mul(x, sigmoid), hn::MulAdd(hn::Mul(x, slope_of_u), hn::Mul(sigmoid, rest), sigmoid)};
}

// The last vector overlaps the one before it where the values do not fill it.
void gated_gelu(const BFloat16* gate, const BFloat16* up, int64_t count, BFloat16* result) {
  for (int64_t next = 0; next < count; next += lanes()) {
    const int64_t i = std::min(next, count - lanes());
    store_bfloat16(hn::Mul(rounded(gelu_of(load_values(gate + i)).value), load_values(up + i)), result + i);
  }
}

void gated_gelu_backward(const BFloat16* gate, const BFloat16* up, const BFloat16* gradient, int64_t count,
                         BFloat16* of_gate, BFloat16* of_up) {
  for (int64_t next = 0; next < count; next += lanes()) {
    const int64_t i = std::min(next, count - lanes());
    const Gelu gelu = gelu_of(load_values(gate + i));
    const FloatVector of_result = load_values(gradient + i);
    store_bfloat16(hn::Mul(hn::Mul(of_result, load_values(up + i)), gelu.slope), of_gate + i);
    store_bfloat16(hn::Mul(of_result, rounded(gelu.value)), of_up + i);
  }
}

}  // namespace qat::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qat {
HWY_EXPORT(rms_norm);
HWY_EXPORT(rms_norm_backward);
HWY_EXPORT(gated_gelu);
HWY_EXPORT(gated_gelu_backward);

namespace bfloat16_kernels {

float rms_norm(const BFloat16* x, int64_t width, const float* factors, double epsilon, BFloat16* result) {
  return HWY_DYNAMIC_DISPATCH(rms_norm)(x, width, factors, epsilon, result);
}
void rms_norm_backward(const BFloat16* x, const BFloat16* gradient, int64_t width, const float* factors, float inverse,
                       BFloat16* of_x, float* of_factors) {
  HWY_DYNAMIC_DISPATCH(rms_norm_backward)(x, gradient, width, factors, inverse, of_x, of_factors);
}
void gated_gelu(const BFloat16* gate, const BFloat16* up, int64_t count, BFloat16* result) {
  HWY_DYNAMIC_DISPATCH(gated_gelu)(gate, up, count, result);
}
void gated_gelu_backward(const BFloat16* gate, const BFloat16* up, const BFloat16* gradient, int64_t count,
                         BFloat16* of_gate, BFloat16* of_up) {
  HWY_DYNAMIC_DISPATCH(gated_gelu_backward)(gate, up, gradient, count, of_gate, of_up);
}

}  // namespace bfloat16_kernels
}  // namespace qat
#endif
