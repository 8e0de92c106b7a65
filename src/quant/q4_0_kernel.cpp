// Q4_0 for every instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/q4_0_kernel.cpp"
// clang-format off
#include <hwy/foreach_target.h>  // must come first
// clang-format on
#include <cmath>
#include <cstring>

#include "quant/block_kernels.h"
#include "quant/q4_0_vector-inl.h"
#include "quant/scalar_codec.h"

HWY_BEFORE_NAMESPACE();
namespace qat::HWY_NAMESPACE {

constexpr size_t kHalf = kBlockValues / 2;

// Blocks whose scales are found together, so that their divisions overlap.
constexpr size_t kBatch = 16;

// The scales of up to kBatch blocks.
struct BatchScales {
  HWY_ALIGN float inverse[kBatch];
  HWY_ALIGN Float16 stored[kBatch];
  HWY_ALIGN float decoded[kBatch];  // of `stored`
};

// kBatch numbers each way, to nearest even. Without instructions for fp16 Highway's substitutes round otherwise.
HWY_INLINE void to_float16_batch(const float* values, Float16* halves) {
#if HWY_TARGET <= HWY_AVX2
  const Floats tag;
  const hn::Rebind<hwy::float16_t, Floats> half;
  for (size_t i = 0; i < kBatch; i += hn::Lanes(tag)) {
    const auto bits = hn::BitCast(HalfWords(), hn::DemoteTo(half, hn::Load(tag, values + i)));
    hn::StoreU(bits, HalfWords(), &halves[i].bits);
  }
#else
  for (size_t i = 0; i < kBatch; ++i) halves[i] = to_float16(values[i]);
#endif
}

HWY_INLINE void to_float_batch(const Float16* halves, float* values) {
#if HWY_TARGET <= HWY_AVX2
  const Floats tag;
  const hn::Rebind<hwy::float16_t, Floats> half;
  for (size_t i = 0; i < kBatch; i += hn::Lanes(tag)) {
    const auto bits = hn::LoadU(HalfWords(), &halves[i].bits);
    hn::Store(hn::PromoteTo(tag, hn::BitCast(half, bits)), tag, values + i);
  }
#else
  for (size_t i = 0; i < kBatch; ++i) values[i] = to_float(halves[i]);
#endif
}

template <class Value>
HWY_INLINE void find_scales(const Value* values, size_t blocks, const Float16* stored_scales, BatchScales& scales) {
  if (stored_scales != nullptr) {
    for (size_t block = 0; block < blocks; ++block) {
      scales.stored[block] = stored_scales[block];
      scales.decoded[block] = to_float(stored_scales[block]);
      scales.inverse[block] = grid::inverse_scale(scales.decoded[block]);
    }
    return;
  }
  const Floats tag;
  HWY_ALIGN float rule[kBatch] = {};
  for (size_t block = 0; block < blocks; ++block) rule[block] = block_extremum(values + block * kBlockValues) / -8.0f;
  for (size_t i = 0; i < kBatch; i += hn::Lanes(tag)) {
    const FloatVector scale = hn::Load(tag, rule + i);
    const FloatVector inverse = hn::Div(hn::Set(tag, 1.0f), scale);
    hn::Store(hn::IfThenZeroElse(hn::Eq(scale, hn::Zero(tag)), inverse), tag, scales.inverse + i);
  }
  to_float16_batch(rule, scales.stored);
  to_float_batch(scales.stored, scales.decoded);
}

// An infinite inverse (underflowing scale) or a scale without a finite fp16 needs the scalar rules.
HWY_INLINE bool is_ordinary(float inverse, Float16 stored) {
  return std::isfinite(inverse) && (stored.bits & 0x7c00u) != 0x7c00u;
}

template <class Value>
HWY_INLINE void encode_codes(const Value* values, float inverse_scale, uint8_t* codes) {
  const Floats tag;
  const FloatVector inverse = hn::Set(tag, inverse_scale);
  // Adding 2^23 leaves the integer in the low bits of the float, without the range checks of a conversion.
  const FloatVector to_low_bits = hn::Set(tag, 8388608.0f);
  for (size_t i = 0; i < kHalf; i += hn::Lanes(tag)) {
    const FloatVector low = codes_of(load_values(values + i), inverse);
    const FloatVector high = codes_of(load_values(values + i + kHalf), inverse);
    const FloatVector pair = hn::Add(low, hn::Mul(high, hn::Set(tag, 16.0f)));
    const auto bits = hn::BitCast(Words(), hn::Add(pair, to_low_bits));
    hn::StoreU(hn::TruncateTo(Bytes(), bits), Bytes(), codes + i);
  }
}

template <class Value>
HWY_INLINE void encode_blocks(const Value* values, size_t blocks, const Float16* stored_scales, uint8_t* bytes) {
  BatchScales scales;
  for (size_t first = 0; first < blocks; first += kBatch) {
    const size_t count = HWY_MIN(kBatch, blocks - first);
    const Float16* stored = stored_scales == nullptr ? nullptr : stored_scales + first;
    find_scales(values, count, stored, scales);
    for (size_t i = 0; i < count; ++i, values += kBlockValues, bytes += scalar::kBytesQ4_0) {
      if (HWY_UNLIKELY(!is_ordinary(scales.inverse[i], scales.stored[i]))) {
        float block[kBlockValues];
        widen_block(values, block);
        scalar::encode_q4_0(scalar::Block(block), stored == nullptr ? nullptr : stored + i, bytes);
        continue;
      }
      std::memcpy(bytes, &scales.stored[i], sizeof(Float16));
      encode_codes(values, scales.inverse[i], bytes + sizeof(Float16));
    }
  }
}

template <class Result>
HWY_INLINE void fake_quantize_values(const BFloat16* master, float inverse_scale, float scale, Result* result) {
  const Floats tag;
  const FloatVector inverse = hn::Set(tag, inverse_scale);
  const FloatVector step = hn::Set(tag, scale);
  for (size_t i = 0; i < kBlockValues; i += hn::Lanes(tag)) {
    const FloatVector code = codes_of(load_values(master + i), inverse);
    store_bfloat16(hn::Mul(step, hn::Sub(code, hn::Set(tag, 8.0f))), result + i);
  }
}

template <class Result>
HWY_INLINE void fake_quantize_blocks(const BFloat16* master, size_t blocks, const Float16* stored_scales,
                                     Result* result) {
  BatchScales scales;
  for (size_t first = 0; first < blocks; first += kBatch) {
    const size_t count = HWY_MIN(kBatch, blocks - first);
    const Float16* stored = stored_scales == nullptr ? nullptr : stored_scales + first;
    find_scales(master, count, stored, scales);
    for (size_t i = 0; i < count; ++i, master += kBlockValues, result += kBlockValues) {
      if (HWY_UNLIKELY(!is_ordinary(scales.inverse[i], scales.stored[i]))) {
        float block[kBlockValues];
        float quantized[kBlockValues];
        widen_block(master, block);
        scalar::fake_quantize_q4_0(scalar::Block(block), stored == nullptr ? nullptr : stored + i,
                                   scalar::DecodedBlock(quantized));
        narrow_block(quantized, result);
        continue;
      }
      fake_quantize_values(master, scales.inverse[i], scales.decoded[i], result);
    }
  }
}

void encode_q4_0_float(const float* values, size_t blocks, const Float16* stored_scales, uint8_t* bytes) {
  encode_blocks(values, blocks, stored_scales, bytes);
}
void encode_q4_0_bfloat16(const BFloat16* values, size_t blocks, const Float16* stored_scales, uint8_t* bytes) {
  encode_blocks(values, blocks, stored_scales, bytes);
}
void fake_quantize_q4_0_float(const BFloat16* master, size_t blocks, const Float16* stored_scales, float* values) {
  fake_quantize_blocks(master, blocks, stored_scales, values);
}
void fake_quantize_q4_0_bfloat16(const BFloat16* master, size_t blocks, const Float16* stored_scales,
                                 BFloat16* values) {
  fake_quantize_blocks(master, blocks, stored_scales, values);
}

template <class Store, class Result>
HWY_INLINE void decode_blocks(const uint8_t* bytes, size_t blocks, Result* values) {
  const Floats tag;
  const Integers integers;
  const Bytes small;
  const auto eight = hn::Set(integers, 8);
  for (size_t block = 0; block < blocks; ++block) {
    Float16 scale;
    std::memcpy(&scale, bytes, sizeof(scale));
    const FloatVector step = hn::Set(tag, to_float(scale));
    for (size_t i = 0; i < kHalf; i += hn::Lanes(tag)) {
      const auto pair = hn::PromoteTo(integers, hn::LoadU(small, bytes + 2 + i));
      const auto low = hn::Sub(hn::And(pair, hn::Set(integers, 15)), eight);
      const auto high = hn::Sub(hn::ShiftRight<4>(pair), eight);
      Store::store(hn::Mul(step, hn::ConvertTo(tag, low)), values + i);
      Store::store(hn::Mul(step, hn::ConvertTo(tag, high)), values + i + kHalf);
    }
    bytes += scalar::kBytesQ4_0;
    values += kBlockValues;
  }
}

void decode_q4_0_exact(const uint8_t* bytes, size_t blocks, float* values) {
  decode_blocks<StoreExact>(bytes, blocks, values);
}
void decode_forward_q4_0_float(const uint8_t* bytes, size_t blocks, float* values) {
  decode_blocks<StoreRounded>(bytes, blocks, values);
}
void decode_forward_q4_0_bfloat16(const uint8_t* bytes, size_t blocks, BFloat16* values) {
  decode_blocks<StoreRounded>(bytes, blocks, values);
}

}  // namespace qat::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qat {
HWY_EXPORT(encode_q4_0_float);
HWY_EXPORT(encode_q4_0_bfloat16);
HWY_EXPORT(fake_quantize_q4_0_float);
HWY_EXPORT(fake_quantize_q4_0_bfloat16);
HWY_EXPORT(decode_q4_0_exact);
HWY_EXPORT(decode_forward_q4_0_float);
HWY_EXPORT(decode_forward_q4_0_bfloat16);

namespace kernels {

void encode_q4_0(const float* values, size_t blocks, const Float16* stored_scales, uint8_t* bytes) {
  HWY_DYNAMIC_DISPATCH(encode_q4_0_float)(values, blocks, stored_scales, bytes);
}
void encode_q4_0(const BFloat16* values, size_t blocks, const Float16* stored_scales, uint8_t* bytes) {
  HWY_DYNAMIC_DISPATCH(encode_q4_0_bfloat16)(values, blocks, stored_scales, bytes);
}
void fake_quantize_q4_0(const BFloat16* master, size_t blocks, const Float16* stored_scales, float* values) {
  HWY_DYNAMIC_DISPATCH(fake_quantize_q4_0_float)(master, blocks, stored_scales, values);
}
void fake_quantize_q4_0(const BFloat16* master, size_t blocks, const Float16* stored_scales, BFloat16* values) {
  HWY_DYNAMIC_DISPATCH(fake_quantize_q4_0_bfloat16)(master, blocks, stored_scales, values);
}
void decode_q4_0(const uint8_t* bytes, size_t blocks, float* values) {
  HWY_DYNAMIC_DISPATCH(decode_q4_0_exact)(bytes, blocks, values);
}
void decode_forward_q4_0(const uint8_t* bytes, size_t blocks, float* values) {
  HWY_DYNAMIC_DISPATCH(decode_forward_q4_0_float)(bytes, blocks, values);
}
void decode_forward_q4_0(const uint8_t* bytes, size_t blocks, BFloat16* values) {
  HWY_DYNAMIC_DISPATCH(decode_forward_q4_0_bfloat16)(bytes, blocks, values);
}

}  // namespace kernels
}  // namespace qat
#endif
