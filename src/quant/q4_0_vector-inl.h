// What the Q4_0 kernels of every instruction set share. Included once per target (Highway's foreach_target).
// Multiplication and addition stay two operations: an FMA would move codes at ties.
#if defined(QAT_QUANT_Q4_0_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QAT_QUANT_Q4_0_VECTOR_INL_H_
#undef QAT_QUANT_Q4_0_VECTOR_INL_H_
#else
#define QAT_QUANT_Q4_0_VECTOR_INL_H_
#endif

#include "quant/vector_loads-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qat::HWY_NAMESPACE {

// Codes 0..15 as floats.
HWY_INLINE FloatVector codes_of(FloatVector values, FloatVector inverse) {
  const Floats tag;
  const FloatVector shifted = hn::Add(hn::Mul(values, inverse), hn::Set(tag, 8.5f));
  return hn::Trunc(hn::Min(hn::Max(shifted, hn::Zero(tag)), hn::Set(tag, 15.0f)));
}

}  // namespace qat::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
