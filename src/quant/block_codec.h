// Rows of values <-> blocks of bytes, and fake quantization, at the speed of memory: Highway kernels chosen at run time that
// equal the scalar rules of grid.h bit for bit. Multithreading is the caller's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/float_types.h"
#include "quant/scheme.h"

namespace qat {

// Encodes whole blocks. `blocks` has values.size() / block_size * block_bytes bytes. `stored_scales` is empty (the scheme's
// rule) or holds one fp16 per block (Q4_0 only). Schemes F32, F16 and BF16 convert (to nearest even).
void encode_blocks(Scheme scheme, std::span<const float> values, std::span<const Float16> stored_scales,
                   std::span<std::byte> blocks);
void encode_blocks(Scheme scheme, std::span<const BFloat16> values, std::span<const Float16> stored_scales,
                   std::span<std::byte> blocks);

// Decodes whole blocks to the exact fp32 values they stand for.
void decode_blocks(Scheme scheme, std::span<const std::byte> blocks, std::span<float> values);

// What a GEMM reads of weights that are kept as blocks: bf16(decode(blocks)), for the blocks of a BF16 master bit for bit
// what fake_quantize_blocks() gives. The float overload holds the same bf16 numbers widened. Quantized schemes only.
void decode_forward_values(Scheme scheme, std::span<const std::byte> blocks, std::span<BFloat16> values);
void decode_forward_values(Scheme scheme, std::span<const std::byte> blocks, std::span<float> values);

// The forward value of a fake-quantized BF16 master: bf16(decode(encode(master))), what a GEMM reads.
// The float overload holds the same bf16 numbers widened. Quantized schemes only.
void fake_quantize_blocks(Scheme scheme, std::span<const BFloat16> master, std::span<const Float16> stored_scales,
                          std::span<BFloat16> values);
void fake_quantize_blocks(Scheme scheme, std::span<const BFloat16> master, std::span<const Float16> stored_scales,
                          std::span<float> values);

}  // namespace qat
