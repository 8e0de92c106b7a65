// Inner products in the order of llama.cpp's AVX2 kernels, bit for bit: fp32 sums are fused multiply-adds in a fixed
// order, so any other order gives other bits. Every function exists twice: a Highway kernel, and the plain loop of
// namespace scalar that says what it computes (and serves where the processor has no eight fp32 lanes with FMA).
#pragma once

#include <cstdint>

#include "reference/device_activations.h"
#include "reference/device_weights.h"

namespace qat::device {

// Eight outputs of one token, CPU_REPACK's order (ggml_gemv_q4_0_8x8_q8_0, ggml_gemm_q4_0_8x8_q8_0): block by block
// sum = fma(float(integer dot), weight scale * activation scale, sum).
void dot_interleaved(const InterleavedTile& tile, const QuantizedRows& x, int64_t token, float* outputs);

// One output, the order of ggml_vec_dot_q8_0_q8_0, ggml_vec_dot_q4_0_q8_0 and tinyBLAS: lane l sums values 4l..4l+3 of
// each block, the eight lanes are added at the end.
float dot_codes(const CodeRow& row, const QuantizedRows& x, int64_t token);

// One output, the order of ggml_vec_dot_q6_K_q8_K.
float dot_super_blocks(const SuperBlockRow& row, const QuantizedRows& x, int64_t token);

// How the fp32 products of F32, F16 and BF16 weights are added up.
enum class SumOrder {
  FourVectors,      // ggml_vec_dot_f32, _f16: four accumulators of eight lanes, neighbours added first at the end
  FourVectorsBF16,  // ggml_vec_dot_bf16: the same, halves added first
  OneVector         // tinyBLAS: one accumulator of eight lanes
};
// Both already rounded to the weight's type. OneVector needs a multiple of eight values. `double_tail`: what is left
// after multiples of 32 is added in double (F16, BF16) instead of fp32. Which of the last products ggml fuses depends on its
// compiler below eight values: counts that are no multiple of eight may differ in the last bit.
float dot_floats(const float* a, const float* b, int64_t count, SumOrder order, bool double_tail);

// sum += factor * values, fused; `half`: every sum is rounded to fp16 (ggml_vec_mad_f16), else fp32 (ggml_vec_mad_f32).
void add_scaled(float* sum, const float* values, float factor, int64_t count, bool half);

namespace scalar {
void dot_interleaved(const InterleavedTile& tile, const QuantizedRows& x, int64_t token, float* outputs);
float dot_codes(const CodeRow& row, const QuantizedRows& x, int64_t token);
float dot_super_blocks(const SuperBlockRow& row, const QuantizedRows& x, int64_t token);
float dot_floats(const float* a, const float* b, int64_t count, SumOrder order, bool double_tail);
void add_scaled(float* sum, const float* values, float factor, int64_t count, bool half);
}  // namespace scalar

}  // namespace qat::device
