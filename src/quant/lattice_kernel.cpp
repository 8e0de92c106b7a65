// Lattices of 4 bits for every instruction set.
//
// The largest magnitude M of a block is the step times some code k. For each k a value over M/k must then lie near a
// whole number, as near as the rounding of both allows: that decides the codes, and one vector of values that were
// never on this lattice refutes it. Each value then bounds the step by the two numbers between which all round to it. A
// scale between the bounds is tried as the forward pass uses it, and counts only if it gives back every value.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/lattice_kernel.cpp"
// clang-format off
#include <hwy/foreach_target.h>  // must come first
// clang-format on
#include <array>
#include <cmath>
#include <limits>
#include <type_traits>

#include "core/error.h"
#include "quant/lattice.h"
#include "quant/q4_0_vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qat::HWY_NAMESPACE {

enum class LatticeFit { Off, Rounded, Exact };

HWY_INLINE FloatVector moved_by(FloatVector magnitude, int32_t bits) {
  const Integers tag;
  return hn::BitCast(Floats(), hn::Add(hn::BitCast(tag, magnitude), hn::Set(tag, bits)));
}

// How a type rounds. A magnitude above 0 is what everything between below() and above() rounds to. kTolerance: twice
// the relative error of rounding, and what fp32 adds.
struct BFloat16Rounding {
  static constexpr float kTolerance = 0.008f;
  static HWY_INLINE FloatVector rounded(FloatVector value) {
    return hn::BitCast(Floats(), hn::ShiftLeft<16>(bfloat16_bits(value)));
  }
  static HWY_INLINE FloatVector below(FloatVector magnitude) { return moved_by(magnitude, -0x8000); }
  static HWY_INLINE FloatVector above(FloatVector magnitude) { return moved_by(magnitude, 0x8000); }
};

struct Float16Rounding {
  static constexpr float kTolerance = 0.001f;
  static HWY_INLINE FloatVector rounded(FloatVector value) { return rounded_to_float16(value); }
  static HWY_INLINE FloatVector below(FloatVector magnitude) { return moved_by(magnitude, -0x1000); }
  static HWY_INLINE FloatVector above(FloatVector magnitude) { return moved_by(magnitude, 0x1000); }
};

// The bounds are half a step too wide.
struct Float32Rounding {
  static constexpr float kTolerance = 1e-6f;
  static HWY_INLINE FloatVector rounded(FloatVector value) { return value; }
  static HWY_INLINE FloatVector below(FloatVector magnitude) { return moved_by(magnitude, -1); }
  static HWY_INLINE FloatVector above(FloatVector magnitude) { return moved_by(magnitude, 1); }
};

template <class Value>
using RoundingOf =
    std::conditional_t<std::is_same_v<Value, BFloat16>, BFloat16Rounding,
                       std::conditional_t<std::is_same_v<Value, Float16>, Float16Rounding, Float32Rounding>>;

// What a step may be.
struct StepBounds {
  float low;
  float high;
};

// False if a value lies off the lattice whose step is about 1/inverse.
template <class Rounding>
HWY_INLINE bool find_step_bounds(const float* block, float inverse, StepBounds& bounds) {
  const Floats tag;
  const FloatVector infinity = hn::Set(tag, std::numeric_limits<float>::infinity());
  FloatVector low = hn::Zero(tag), high = infinity;
  for (size_t i = 0; i < kBlockValues; i += hn::Lanes(tag)) {
    const FloatVector magnitude = hn::Abs(hn::Load(tag, block + i));
    const FloatVector scaled = hn::Mul(magnitude, hn::Set(tag, inverse));
    const FloatVector code = hn::Round(scaled);
    const FloatVector allowed = hn::Mul(code, hn::Set(tag, Rounding::kTolerance));
    if (!hn::AllTrue(tag, hn::Le(hn::Abs(hn::Sub(scaled, code)), allowed))) return false;
    const auto is_zero = hn::Eq(code, hn::Zero(tag));
    const FloatVector reciprocal = hn::Div(hn::Set(tag, 1.0f), code);
    low = hn::Max(low, hn::IfThenZeroElse(is_zero, hn::Mul(Rounding::below(magnitude), reciprocal)));
    high = hn::Min(high, hn::IfThenElse(is_zero, infinity, hn::Mul(Rounding::above(magnitude), reciprocal)));
  }
  bounds = {hn::GetLane(hn::MaxOfLanes(tag, low)), hn::GetLane(hn::MinOfLanes(tag, high))};
  return true;
}

// Whether the codes that the grid gives under a scale, times a step (the scale itself, or what it was rounded from),
// round to the values.
template <class Rounding>
HWY_INLINE bool gives_back(const float* block, float scale, float step) {
  const Floats tag;
  const FloatVector inverse = hn::Set(tag, grid::inverse_scale(scale));
  for (size_t i = 0; i < kBlockValues; i += hn::Lanes(tag)) {
    const FloatVector value = hn::Load(tag, block + i);
    const FloatVector code = hn::Sub(codes_of(value, inverse), hn::Set(tag, 8.0f));
    if (!hn::AllTrue(tag, hn::Eq(Rounding::rounded(hn::Mul(hn::Set(tag, step), code)), value))) return false;
  }
  return true;
}

// `middle` of the bounds, with the sign of the scale.
template <class Rounding>
HWY_INLINE bool find_exact_scale(const float* block, float middle, Float16& found) {
  const Float16 nearest = to_float16(middle);
  // If the bounds hold a BF16 or an fp16 number, the one nearest to their middle is it; but the bounds are rounded, and
  // a number on them may count or not, so that its neighbours are tried as well.
  const std::array candidates{to_float16(to_float(to_bfloat16(middle))), nearest,
                              Float16{static_cast<uint16_t>(nearest.bits - 1)},
                              Float16{static_cast<uint16_t>(nearest.bits + 1)}};
  for (const Float16 candidate : candidates) {
    const float scale = to_float(candidate);
    if (!std::isfinite(scale) || !gives_back<Rounding>(block, scale, scale)) continue;
    found = candidate;
    return true;
  }
  return false;
}

// Less than a BF16 step. An fp16 that is further off its step, as only subnormal and infinite ones are, would not give
// the codes.
constexpr float kLargestChange = 0x1p-9f;

template <class Rounding>
HWY_INLINE bool find_rounded_scale(const float* block, float middle, Float16& found) {
  const Float16 nearest = to_float16(middle);
  const float scale = to_float(nearest);
  if (!(std::fabs(scale - middle) <= kLargestChange * std::fabs(middle))) return false;
  if (!gives_back<Rounding>(block, scale, middle)) return false;
  found = nearest;
  return true;
}

template <class Rounding>
HWY_INLINE LatticeFit fit_lattice(const float* block, Float16& scale) {
  const float extremum = block_extremum(block);
  scale = to_float16(std::fmin(std::fmax(extremum / -8.0f, -65504.0f), 65504.0f));
  if (extremum == 0.0f && gives_back<Rounding>(block, 0.0f, 0.0f)) return LatticeFit::Exact;  // unless there are NaN
  const float inverse = 1.0f / std::fabs(extremum);
  LatticeFit fit = LatticeFit::Off;
  for (int code = 8; code >= 1; --code) {
    StepBounds bounds;
    if (!find_step_bounds<Rounding>(block, static_cast<float>(code) * inverse, bounds)) continue;
    // Only -8 is eight steps from zero.
    const float middle = 0.5f * (bounds.low + bounds.high) * (code == 8 && extremum > 0 ? -1.0f : 1.0f);
    if (find_exact_scale<Rounding>(block, middle, scale)) return LatticeFit::Exact;
    if (fit == LatticeFit::Off && find_rounded_scale<Rounding>(block, middle, scale)) fit = LatticeFit::Rounded;
  }
  return fit;
}

// `block` is room for the values as floats.
template <class Value>
HWY_INLINE LatticeFit recover_scale(const Value* values, float* block, Float16& scale) {
  widen_block(values, block);
  const LatticeFit fit = fit_lattice<RoundingOf<Value>>(block, scale);
  if (std::is_same_v<Value, BFloat16> || fit == LatticeFit::Exact) return fit;
  for (size_t i = 0; i < kBlockValues; ++i) block[i] = to_float(to_bfloat16(block[i]));
  Float16 of_rounded;
  const LatticeFit fit_of_rounded = fit_lattice<BFloat16Rounding>(block, of_rounded);
  if (fit == LatticeFit::Rounded && fit_of_rounded != LatticeFit::Exact) return fit;
  scale = of_rounded;
  return fit_of_rounded;
}

template <class Value>
HWY_INLINE LatticeCounts recover_scales(const Value* values, size_t blocks, Float16* scales) {
  HWY_ALIGN float block[kBlockValues];
  std::array<int64_t, 3> counts{};
  for (size_t i = 0; i < blocks; ++i, values += kBlockValues) {
    ++counts[static_cast<size_t>(recover_scale(values, block, scales[i]))];
  }
  return {counts[static_cast<size_t>(LatticeFit::Exact)], counts[static_cast<size_t>(LatticeFit::Rounded)],
          counts[static_cast<size_t>(LatticeFit::Off)]};
}

LatticeCounts recover_scales_bfloat16(const BFloat16* values, size_t blocks, Float16* scales) {
  return recover_scales(values, blocks, scales);
}
LatticeCounts recover_scales_float16(const Float16* values, size_t blocks, Float16* scales) {
  return recover_scales(values, blocks, scales);
}
LatticeCounts recover_scales_float(const float* values, size_t blocks, Float16* scales) {
  return recover_scales(values, blocks, scales);
}

}  // namespace qat::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qat {
HWY_EXPORT(recover_scales_bfloat16);
HWY_EXPORT(recover_scales_float16);
HWY_EXPORT(recover_scales_float);

LatticeCounts recover_block_scales(std::span<const BFloat16> values, std::span<Float16> scales) {
  QAT_CHECK(values.size() == scales.size() * grid::kBlock);
  return HWY_DYNAMIC_DISPATCH(recover_scales_bfloat16)(values.data(), scales.size(), scales.data());
}

LatticeCounts recover_block_scales(std::span<const Float16> values, std::span<Float16> scales) {
  QAT_CHECK(values.size() == scales.size() * grid::kBlock);
  return HWY_DYNAMIC_DISPATCH(recover_scales_float16)(values.data(), scales.size(), scales.data());
}

LatticeCounts recover_block_scales(std::span<const float> values, std::span<Float16> scales) {
  QAT_CHECK(values.size() == scales.size() * grid::kBlock);
  return HWY_DYNAMIC_DISPATCH(recover_scales_float)(values.data(), scales.size(), scales.data());
}

}  // namespace qat
#endif
