// The vector kernels behind block_codec.h, each dispatched to the best instruction set of the machine at run time.
// Raw pointers, no checks: block_codec.cpp has checked the sizes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/float_types.h"

namespace qat::kernels {

// `stored_scales` null: the rule of the scheme; else one per block.
void encode_q4_0(const float* values, size_t blocks, const Float16* stored_scales, uint8_t* bytes);
void encode_q4_0(const BFloat16* values, size_t blocks, const Float16* stored_scales, uint8_t* bytes);
void decode_q4_0(const uint8_t* bytes, size_t blocks, float* values);
void decode_forward_q4_0(const uint8_t* bytes, size_t blocks, BFloat16* values);
void decode_forward_q4_0(const uint8_t* bytes, size_t blocks, float* values);
void fake_quantize_q4_0(const BFloat16* master, size_t blocks, const Float16* stored_scales, BFloat16* values);
void fake_quantize_q4_0(const BFloat16* master, size_t blocks, const Float16* stored_scales, float* values);

void encode_q8_0(const float* values, size_t blocks, uint8_t* bytes);
void encode_q8_0(const BFloat16* values, size_t blocks, uint8_t* bytes);
void decode_q8_0(const uint8_t* bytes, size_t blocks, float* values);
void decode_forward_q8_0(const uint8_t* bytes, size_t blocks, BFloat16* values);
void decode_forward_q8_0(const uint8_t* bytes, size_t blocks, float* values);
void fake_quantize_q8_0(const BFloat16* master, size_t blocks, BFloat16* values);
void fake_quantize_q8_0(const BFloat16* master, size_t blocks, float* values);

void encode_q6_k(const float* values, size_t blocks, uint8_t* bytes);
void decode_q6_k(const uint8_t* bytes, size_t blocks, float* values);

}  // namespace qat::kernels
