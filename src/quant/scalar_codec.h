// One block at a time by the scalar rules of grid.h: what the vector kernels fall back to for blocks whose scale leaves
// the normal range, and what tests compare them with.
#pragma once

#include <cstdint>
#include <span>

#include "core/float_types.h"
#include "quant/grid.h"

namespace qat::scalar {

using Block = std::span<const float, grid::kBlock>;
using DecodedBlock = std::span<float, grid::kBlock>;

inline constexpr int kBytesQ4_0 = 18;  // fp16 scale, then code j in the low and code j + 16 in the high half of byte j
inline constexpr int kBytesQ8_0 = 34;  // fp16 scale, then 32 signed bytes

// The two scales of a Q4_0 block: what values are multiplied by, and what the file holds.
struct EncodingScale {
  float inverse;
  Float16 stored;
};
// `stored_scale` null: the rule of the scheme.
EncodingScale q4_0_encoding_scale(Block values, const Float16* stored_scale);

// block_scales.h: search_block_scales() of one block.
Float16 q4_0_searched_scale(Block values);

// `bytes` has kBytesQ4_0 (kBytesQ8_0) bytes.
void encode_q4_0(Block values, const Float16* stored_scale, uint8_t* bytes);
void encode_q8_0(Block values, uint8_t* bytes);
void decode_q4_0(const uint8_t* bytes, DecodedBlock values);
void decode_q8_0(const uint8_t* bytes, DecodedBlock values);

// bf16(decode(encode(values))), widened.
void fake_quantize_q4_0(Block values, const Float16* stored_scale, DecodedBlock result);
void fake_quantize_q8_0(Block values, DecodedBlock result);

}  // namespace qat::scalar
