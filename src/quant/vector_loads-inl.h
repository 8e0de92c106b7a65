// Loads and stores that the kernels of every instruction set share. Included once per target (Highway's
// foreach_target).
#if defined(QAT_QUANT_VECTOR_LOADS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QAT_QUANT_VECTOR_LOADS_INL_H_
#undef QAT_QUANT_VECTOR_LOADS_INL_H_
#else
#define QAT_QUANT_VECTOR_LOADS_INL_H_
#endif

#include <hwy/highway.h>

#include "core/float_types.h"

HWY_BEFORE_NAMESPACE();
namespace qat::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most half a block, so that values i and i + 16 never share a vector.
using Floats = hn::CappedTag<float, 16>;
using Integers = hn::RebindToSigned<Floats>;
using Words = hn::RebindToUnsigned<Floats>;
using HalfWords = hn::Rebind<uint16_t, Floats>;
using Bytes = hn::Rebind<uint8_t, Floats>;
using SignedBytes = hn::Rebind<int8_t, Floats>;
using FloatVector = hn::Vec<Floats>;

inline constexpr size_t kBlockValues = 32;

HWY_INLINE FloatVector load_values(const float* values) { return hn::LoadU(Floats(), values); }

HWY_INLINE FloatVector load_values(const BFloat16* values) {
  const auto bits = hn::PromoteTo(Words(), hn::LoadU(HalfWords(), &values->bits));
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(bits));
}

// The bits of bf16(value) in the low halves; for numbers, not NaN.
HWY_INLINE hn::Vec<Words> bfloat16_bits(FloatVector value) {
  const Words tag;
  const auto bits = hn::BitCast(tag, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(tag, 1));
  return hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(tag, 0x7fff)), odd));
}

// The nearest fp16 numbers, widened, of numbers below 65520.
HWY_INLINE FloatVector rounded_to_float16(FloatVector value) {
  const Floats tag;
  const Words words;
  const auto bits = hn::BitCast(words, value);
  const auto odd = hn::And(hn::ShiftRight<13>(bits), hn::Set(words, 1));
  const auto rounded = hn::And(hn::Add(hn::Add(bits, hn::Set(words, 0xfff)), odd), hn::Set(words, 0xffffe000u));
  // Below 2^-14 fp16 is subnormal: adding 0.5 lets the fp32 adder round at the bit worth 2^-24.
  const FloatVector magnitude = hn::Abs(value), half = hn::Set(tag, 0.5f);
  const FloatVector subnormal = hn::CopySign(hn::Sub(hn::Add(magnitude, half), half), value);
  return hn::IfThenElse(hn::Lt(magnitude, hn::Set(tag, 0x1p-14f)), subnormal, hn::BitCast(tag, rounded));
}

HWY_INLINE void store_bfloat16(FloatVector value, float* values) {
  hn::StoreU(hn::BitCast(Floats(), hn::ShiftLeft<16>(bfloat16_bits(value))), Floats(), values);
}

HWY_INLINE void store_bfloat16(FloatVector value, BFloat16* values) {
  hn::StoreU(hn::TruncateTo(HalfWords(), bfloat16_bits(value)), HalfWords(), &values->bits);
}

// How decoded values are stored: exact, or rounded to BF16.
struct StoreExact {
  static HWY_INLINE void store(FloatVector value, float* target) { hn::StoreU(value, Floats(), target); }
};
struct StoreRounded {
  static HWY_INLINE void store(FloatVector value, float* target) { store_bfloat16(value, target); }
  static HWY_INLINE void store(FloatVector value, BFloat16* target) { store_bfloat16(value, target); }
};

// The block as floats, for the scalar rules.
HWY_INLINE void widen_block(const float* values, float* block) {
  for (size_t i = 0; i < kBlockValues; ++i) block[i] = values[i];
}
HWY_INLINE void widen_block(const BFloat16* values, float* block) {
  for (size_t i = 0; i < kBlockValues; ++i) block[i] = to_float(values[i]);
}
HWY_INLINE void widen_block(const Float16* values, float* block) {
  for (size_t i = 0; i < kBlockValues; ++i) block[i] = to_float(values[i]);
}
HWY_INLINE void narrow_block(const float* block, float* values) {
  for (size_t i = 0; i < kBlockValues; ++i) values[i] = block[i];
}
HWY_INLINE void narrow_block(const float* block, BFloat16* values) {
  for (size_t i = 0; i < kBlockValues; ++i) values[i] = to_bfloat16(block[i]);
}

}  // namespace qat::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
