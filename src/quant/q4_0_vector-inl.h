// What the Q4_0 kernels of every instruction set share. Included once per target (Highway's foreach_target).
// Multiplication and addition stay two operations: an FMA would move codes at ties.
#if defined(QAT_QUANT_Q4_0_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QAT_QUANT_Q4_0_VECTOR_INL_H_
#undef QAT_QUANT_Q4_0_VECTOR_INL_H_
#else
#define QAT_QUANT_Q4_0_VECTOR_INL_H_
#endif

#include "quant/scalar_codec.h"
#include "quant/vector_loads-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qat::HWY_NAMESPACE {

// Codes 0..15 as floats.
HWY_INLINE FloatVector codes_of(FloatVector values, FloatVector inverse) {
  const Floats tag;
  const FloatVector shifted = hn::Add(hn::Mul(values, inverse), hn::Set(tag, 8.5f));
  return hn::Trunc(hn::Min(hn::Max(shifted, hn::Zero(tag)), hn::Set(tag, 15.0f)));
}

// The value of largest magnitude, the first one on ties; +0 for a block of zeros.
HWY_INLINE float block_extremum(const float* values) {
  const Floats tag;
  FloatVector largest = load_values(values);
  FloatVector smallest = largest;
  for (size_t i = hn::Lanes(tag); i < kBlockValues; i += hn::Lanes(tag)) {
    const FloatVector next = load_values(values + i);
    largest = hn::Max(largest, next);
    smallest = hn::Min(smallest, next);
  }
  const FloatVector top = hn::MaxOfLanes(tag, largest);
  const FloatVector bottom = hn::MinOfLanes(tag, smallest);
  if (HWY_UNLIKELY(hn::GetLane(top) == -hn::GetLane(bottom))) {
    // Both signs reach the magnitude (or all is zero): the scalar rule knows which comes first.
    return grid::q4_0_scale(scalar::Block(values, kBlockValues)) * -8.0f;
  }
  // A blend, since a branch on the sign of an extremum is a coin toss.
  return hn::GetLane(hn::IfThenElse(hn::Gt(top, hn::Neg(bottom)), top, bottom));
}

// The same on the bits: magnitudes of BF16 numbers order as integers.
HWY_INLINE float block_extremum(const BFloat16* values) {
  const hn::CappedTag<uint16_t, kBlockValues> tag;
  const auto magnitudes = [&](size_t i) {
    return hn::And(hn::LoadU(tag, &values[i].bits), hn::Set(tag, uint16_t{0x7fff}));
  };
  auto largest = magnitudes(0);
  for (size_t i = hn::Lanes(tag); i < kBlockValues; i += hn::Lanes(tag)) largest = hn::Max(largest, magnitudes(i));
  const uint16_t magnitude = hn::GetLane(hn::MaxOfLanes(tag, largest));
  if (HWY_UNLIKELY(magnitude == 0)) return 0.0f;
  size_t i = 0;
  auto found = hn::Eq(magnitudes(0), hn::Set(tag, magnitude));
  while (hn::AllFalse(tag, found)) {
    i += hn::Lanes(tag);
    found = hn::Eq(magnitudes(i), hn::Set(tag, magnitude));
  }
  return to_float(values[i + hn::FindKnownFirstTrue(tag, found)]);
}

}  // namespace qat::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
