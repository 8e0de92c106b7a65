// As integers, magnitudes sort like the numbers that they are, infinity above all of them and NaN above infinity.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/magnitude_kernel.cpp"
// clang-format off
#include <hwy/foreach_target.h>  // must come first
// clang-format on
#include <hwy/highway.h>

#include <bit>
#include <cstdint>
#include <limits>

#include "quant/magnitude.h"

HWY_BEFORE_NAMESPACE();
namespace qat::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The largest of the values' bits without the sign.
template <class Integer, class Value>
HWY_INLINE Integer largest_bits(const Value* values, size_t count) {
  const hn::ScalableTag<Integer> tag;
  constexpr Integer kMask = std::numeric_limits<Integer>::max();
  const size_t lanes = hn::Lanes(tag);
  const auto mask = hn::Set(tag, kMask);
  const auto magnitudes = [&](size_t i) {
    return hn::And(hn::LoadU(tag, reinterpret_cast<const Integer*>(values + i)), mask);
  };
  auto first = hn::Zero(tag);
  auto second = hn::Zero(tag);
  size_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    first = hn::Max(first, magnitudes(i));
    second = hn::Max(second, magnitudes(i + lanes));
  }
  HWY_ALIGN Integer candidates[hn::MaxLanes(tag)];
  hn::Store(hn::Max(first, second), tag, candidates);
  Integer largest = 0;
  for (size_t lane = 0; lane < lanes; ++lane) largest = HWY_MAX(largest, candidates[lane]);
  for (; i < count; ++i) largest = HWY_MAX(largest, static_cast<Integer>(std::bit_cast<Integer>(values[i]) & kMask));
  return largest;
}

int16_t largest_bits_bfloat16(const BFloat16* values, size_t count) { return largest_bits<int16_t>(values, count); }
int32_t largest_bits_float(const float* values, size_t count) { return largest_bits<int32_t>(values, count); }

}  // namespace qat::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qat {
HWY_EXPORT(largest_bits_bfloat16);
HWY_EXPORT(largest_bits_float);

float largest_magnitude(std::span<const float> values) {
  return std::bit_cast<float>(HWY_DYNAMIC_DISPATCH(largest_bits_float)(values.data(), values.size()));
}

float largest_magnitude(std::span<const BFloat16> values) {
  return to_float(std::bit_cast<BFloat16>(HWY_DYNAMIC_DISPATCH(largest_bits_bfloat16)(values.data(), values.size())));
}

}  // namespace qat
#endif
