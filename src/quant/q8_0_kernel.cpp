// Q8_0 for every instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/q8_0_kernel.cpp"
// clang-format off
#include <hwy/foreach_target.h>  // must come first
// clang-format on
#include <cmath>
#include <cstring>

#include "quant/block_kernels.h"
#include "quant/scalar_codec.h"
#include "quant/vector_loads-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qat::HWY_NAMESPACE {

template <class Value>
HWY_INLINE float block_scale(const Value* values) {
  const Floats tag;
  FloatVector magnitude = hn::Zero(tag);
  for (size_t i = 0; i < kBlockValues; i += hn::Lanes(tag)) {
    magnitude = hn::Max(magnitude, hn::Abs(load_values(values + i)));
  }
  return hn::GetLane(hn::MaxOfLanes(tag, magnitude)) / 127.0f;
}

// Nearest integers, halves away from zero, as floats. The fraction of a number this small is exact.
HWY_INLINE FloatVector rounded_codes(FloatVector values, FloatVector inverse) {
  const Floats tag;
  const FloatVector exact = hn::Mul(values, inverse);
  const FloatVector whole = hn::Trunc(exact);
  const auto half_or_more = hn::Ge(hn::Abs(hn::Sub(exact, whole)), hn::Set(tag, 0.5f));
  const FloatVector away = hn::CopySign(hn::Set(tag, 1.0f), exact);
  return hn::Add(whole, hn::IfThenElseZero(half_or_more, away));
}

// An infinite inverse (underflowing scale) or a scale without a finite fp16 needs the scalar rules.
HWY_INLINE bool is_ordinary(float inverse, Float16 stored) {
  return std::isfinite(inverse) && (stored.bits & 0x7c00u) != 0x7c00u;
}

template <class Value>
HWY_INLINE void encode_blocks(const Value* values, size_t blocks, uint8_t* bytes) {
  const Floats tag;
  const SignedBytes small;
  for (size_t block = 0; block < blocks; ++block, values += kBlockValues, bytes += scalar::kBytesQ8_0) {
    const float scale = block_scale(values);
    const float inverse = grid::inverse_scale(scale);
    const Float16 stored = to_float16(scale);
    if (HWY_UNLIKELY(!is_ordinary(inverse, stored))) {
      float widened[kBlockValues];
      widen_block(values, widened);
      scalar::encode_q8_0(scalar::Block(widened), bytes);
      continue;
    }
    std::memcpy(bytes, &stored, sizeof(stored));
    for (size_t i = 0; i < kBlockValues; i += hn::Lanes(tag)) {
      const auto codes = hn::ConvertTo(Integers(), rounded_codes(load_values(values + i), hn::Set(tag, inverse)));
      hn::StoreU(hn::DemoteTo(small, codes), small, reinterpret_cast<int8_t*>(bytes + 2 + i));
    }
  }
}

template <class Result>
HWY_INLINE void fake_quantize_blocks(const BFloat16* master, size_t blocks, Result* result) {
  const Floats tag;
  for (size_t block = 0; block < blocks; ++block, master += kBlockValues, result += kBlockValues) {
    const float scale = block_scale(master);
    const float inverse = grid::inverse_scale(scale);
    const Float16 stored = to_float16(scale);
    if (HWY_UNLIKELY(!is_ordinary(inverse, stored))) {
      float widened[kBlockValues];
      float quantized[kBlockValues];
      widen_block(master, widened);
      scalar::fake_quantize_q8_0(scalar::Block(widened), scalar::DecodedBlock(quantized));
      narrow_block(quantized, result);
      continue;
    }
    const FloatVector step = hn::Set(tag, to_float(stored));
    for (size_t i = 0; i < kBlockValues; i += hn::Lanes(tag)) {
      const FloatVector codes = rounded_codes(load_values(master + i), hn::Set(tag, inverse));
      // A code is an integer and has no negative zero; adding +0 removes the sign that truncation left.
      store_bfloat16(hn::Mul(step, hn::Add(codes, hn::Zero(tag))), result + i);
    }
  }
}

void encode_q8_0_float(const float* values, size_t blocks, uint8_t* bytes) { encode_blocks(values, blocks, bytes); }
void encode_q8_0_bfloat16(const BFloat16* values, size_t blocks, uint8_t* bytes) {
  encode_blocks(values, blocks, bytes);
}
void fake_quantize_q8_0_float(const BFloat16* master, size_t blocks, float* values) {
  fake_quantize_blocks(master, blocks, values);
}
void fake_quantize_q8_0_bfloat16(const BFloat16* master, size_t blocks, BFloat16* values) {
  fake_quantize_blocks(master, blocks, values);
}

template <class Store, class Result>
HWY_INLINE void decode_blocks(const uint8_t* bytes, size_t blocks, Result* values) {
  const Floats tag;
  const SignedBytes small;
  for (size_t block = 0; block < blocks; ++block, values += kBlockValues, bytes += scalar::kBytesQ8_0) {
    Float16 scale;
    std::memcpy(&scale, bytes, sizeof(scale));
    const FloatVector step = hn::Set(tag, to_float(scale));
    for (size_t i = 0; i < kBlockValues; i += hn::Lanes(tag)) {
      const auto codes = hn::PromoteTo(Integers(), hn::LoadU(small, reinterpret_cast<const int8_t*>(bytes + 2 + i)));
      Store::store(hn::Mul(step, hn::ConvertTo(tag, codes)), values + i);
    }
  }
}

void decode_q8_0_exact(const uint8_t* bytes, size_t blocks, float* values) {
  decode_blocks<StoreExact>(bytes, blocks, values);
}
void decode_forward_q8_0_float(const uint8_t* bytes, size_t blocks, float* values) {
  decode_blocks<StoreRounded>(bytes, blocks, values);
}
void decode_forward_q8_0_bfloat16(const uint8_t* bytes, size_t blocks, BFloat16* values) {
  decode_blocks<StoreRounded>(bytes, blocks, values);
}

}  // namespace qat::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qat {
HWY_EXPORT(encode_q8_0_float);
HWY_EXPORT(encode_q8_0_bfloat16);
HWY_EXPORT(fake_quantize_q8_0_float);
HWY_EXPORT(fake_quantize_q8_0_bfloat16);
HWY_EXPORT(decode_q8_0_exact);
HWY_EXPORT(decode_forward_q8_0_float);
HWY_EXPORT(decode_forward_q8_0_bfloat16);

namespace kernels {

void encode_q8_0(const float* values, size_t blocks, uint8_t* bytes) {
  HWY_DYNAMIC_DISPATCH(encode_q8_0_float)(values, blocks, bytes);
}
void encode_q8_0(const BFloat16* values, size_t blocks, uint8_t* bytes) {
  HWY_DYNAMIC_DISPATCH(encode_q8_0_bfloat16)(values, blocks, bytes);
}
void fake_quantize_q8_0(const BFloat16* master, size_t blocks, float* values) {
  HWY_DYNAMIC_DISPATCH(fake_quantize_q8_0_float)(master, blocks, values);
}
void fake_quantize_q8_0(const BFloat16* master, size_t blocks, BFloat16* values) {
  HWY_DYNAMIC_DISPATCH(fake_quantize_q8_0_bfloat16)(master, blocks, values);
}
void decode_q8_0(const uint8_t* bytes, size_t blocks, float* values) {
  HWY_DYNAMIC_DISPATCH(decode_q8_0_exact)(bytes, blocks, values);
}
void decode_forward_q8_0(const uint8_t* bytes, size_t blocks, float* values) {
  HWY_DYNAMIC_DISPATCH(decode_forward_q8_0_float)(bytes, blocks, values);
}
void decode_forward_q8_0(const uint8_t* bytes, size_t blocks, BFloat16* values) {
  HWY_DYNAMIC_DISPATCH(decode_forward_q8_0_bfloat16)(bytes, blocks, values);
}

}  // namespace kernels
}  // namespace qat
#endif
