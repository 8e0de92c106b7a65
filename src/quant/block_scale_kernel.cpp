// Search and gradients of Q4_0 scales for every instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/block_scale_kernel.cpp"
// clang-format off
#include <hwy/foreach_target.h>  // must come first
// clang-format on
#include <array>
#include <cmath>
#include <limits>

#include "quant/block_scale_kernels.h"
#include "quant/q4_0_search.h"
#include "quant/q4_0_vector-inl.h"
#include "quant/scalar_codec.h"

HWY_BEFORE_NAMESPACE();
namespace qat::HWY_NAMESPACE {

struct BestScale {
  float scale;
  float error;
};

// Tries multiples of a scale; a lane holds one of them, so that errors are summed in the block's order.
template <size_t kCount>
HWY_INLINE void try_multiples(const float* block, float scale, const std::array<float, kCount>& factors,
                              BestScale& best) {
  const Floats tag;
  HWY_ALIGN float candidates[kCount];
  HWY_ALIGN float errors[kCount];
  const FloatVector eight = hn::Set(tag, 8.0f);
  for (size_t first = 0; first < kCount; first += hn::Lanes(tag)) {
    const FloatVector candidate =
        rounded_to_float16(hn::Mul(hn::Set(tag, scale), hn::LoadU(tag, factors.data() + first)));
    const FloatVector inverse =
        hn::IfThenZeroElse(hn::Eq(candidate, hn::Zero(tag)), hn::Div(hn::Set(tag, 1.0f), candidate));
    FloatVector error = hn::Zero(tag);
    for (size_t i = 0; i < kBlockValues; ++i) {
      const FloatVector value = hn::Set(tag, block[i]);
      const FloatVector off = hn::Sub(hn::Mul(candidate, hn::Sub(codes_of(value, inverse), eight)), value);
      error = hn::Add(error, hn::Mul(off, off));
    }
    hn::Store(candidate, tag, candidates + first);
    hn::Store(error, tag, errors + first);
  }
  for (size_t i = 0; i < kCount; ++i) {
    if (errors[i] < best.error) best = {candidates[i], errors[i]};
  }
}

void search_q4_0(const BFloat16* values, size_t blocks, Float16* scales) {
  constexpr float kLargestRule = 16384.0f;  // no multiple of it leaves fp16
  for (size_t i = 0; i < blocks; ++i, values += kBlockValues) {
    HWY_ALIGN float block[kBlockValues];
    widen_block(values, block);
    const float rule = grid::q4_0_scale(scalar::Block(block));
    if (HWY_UNLIKELY(!(std::fabs(rule) < kLargestRule))) {
      scales[i] = scalar::q4_0_searched_scale(scalar::Block(block));
      continue;
    }
    BestScale best{rule, std::numeric_limits<float>::infinity()};
    try_multiples(block, rule, kCoarseFactors, best);
    try_multiples(block, best.scale, kFineFactors, best);
    scales[i] = to_float16(best.scale);
  }
}

// Values of the target's type, widened.
HWY_INLINE void store_as_is(FloatVector value, float* target) { hn::StoreU(value, Floats(), target); }
HWY_INLINE void store_as_is(FloatVector value, BFloat16* target) { store_bfloat16(value, target); }

template <class Value>
HWY_INLINE void scale_gradients(const BFloat16* values, const Value* gradient, size_t blocks, const Float16* scales,
                                Value* masked, float* of_scales) {
  const Floats tag;
  const FloatVector eight = hn::Set(tag, 8.0f);
  for (size_t block = 0; block < blocks; ++block) {
    const FloatVector inverse = hn::Set(tag, grid::inverse_scale(to_float(scales[block])));
    FloatVector sum = hn::Zero(tag);
    for (size_t i = 0; i < kBlockValues; i += hn::Lanes(tag)) {
      const FloatVector value = load_values(values + i), incoming = load_values(gradient + i);
      const FloatVector scaled = hn::Mul(value, inverse);
      const FloatVector code = hn::Sub(codes_of(value, inverse), eight);
      const auto inside = hn::And(hn::Ge(scaled, hn::Set(tag, -8.0f)), hn::Le(scaled, hn::Set(tag, 7.0f)));
      const FloatVector step = hn::IfThenElse(inside, hn::Sub(code, scaled), code);
      sum = hn::Add(sum, hn::Mul(incoming, step));
      store_as_is(hn::IfThenElseZero(inside, incoming), masked + i);
    }
    of_scales[block] = hn::GetLane(hn::SumOfLanes(tag, sum));
    values += kBlockValues;
    gradient += kBlockValues;
    masked += kBlockValues;
  }
}

void scale_gradients_float(const BFloat16* values, const float* gradient, size_t blocks, const Float16* scales,
                           float* masked, float* of_scales) {
  scale_gradients(values, gradient, blocks, scales, masked, of_scales);
}
void scale_gradients_bfloat16(const BFloat16* values, const BFloat16* gradient, size_t blocks, const Float16* scales,
                              BFloat16* masked, float* of_scales) {
  scale_gradients(values, gradient, blocks, scales, masked, of_scales);
}

}  // namespace qat::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qat::kernels {
HWY_EXPORT(search_q4_0);
HWY_EXPORT(scale_gradients_float);
HWY_EXPORT(scale_gradients_bfloat16);

void search_q4_0_scales(const BFloat16* values, size_t blocks, Float16* scales) {
  HWY_DYNAMIC_DISPATCH(search_q4_0)(values, blocks, scales);
}
void block_scale_gradients(const BFloat16* values, const float* gradient, size_t blocks, const Float16* scales,
                           float* masked, float* of_scales) {
  HWY_DYNAMIC_DISPATCH(scale_gradients_float)(values, gradient, blocks, scales, masked, of_scales);
}
void block_scale_gradients(const BFloat16* values, const BFloat16* gradient, size_t blocks, const Float16* scales,
                           BFloat16* masked, float* of_scales) {
  HWY_DYNAMIC_DISPATCH(scale_gradients_bfloat16)(values, gradient, blocks, scales, masked, of_scales);
}

}  // namespace qat::kernels
#endif
