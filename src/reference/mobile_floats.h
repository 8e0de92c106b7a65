// What XNNPACK computes in fp32 between the linears of a mobile model, bit for bit, for x86-64 processors with FMA
// (google/XNNPACK @ 75db3c093b: src/configs names the kernels f32-rsum2, f32-vrsqrt, f32-vcos, f32-vsin,
// f32-vapproxgelu, f32-vtanh, f32-raddstoreexpminusmax, f32-gemm and f32-qc8w-gemm). The sum of squares, the sum of a
// softmax and the first estimate of an inverse root depend on the width of the processor's vectors: they are those of
// the processor that this runs on, AVX-512 or AVX2; elsewhere AVX2's, with the correctly rounded root.
#pragma once

#include <cstdint>
#include <span>

namespace qat::mobile {

// values *= 1 / sqrt(mean(values²) + epsilon), then *= weight unless that is empty. MUL, MEAN, ADD, RSQRT, MUL, MUL.
void rms_norm(std::span<float> values, std::span<const float> weight, float epsilon);

// COS and SIN of angles.
void cosines(std::span<const float> angles, std::span<float> results);
void sines(std::span<const float> angles, std::span<float> results);

// gate = gelu_tanh(gate) * factor. GELU (approximate), MUL.
void gated_gelu(std::span<float> gate, std::span<const float> factor);

// cap * tanh(values * (1 / cap)). MUL, TANH, MUL.
void softcap(std::span<float> values, float cap);

// SOFTMAX over a row of `length` scores of which all but those from `first` on are hidden. A hidden score's share is 0,
// but where a score stands decides when its exponential is added.
void softmax(std::span<float> visible, int64_t first, int64_t length);

// outputs[row, j] = sum over i of x[row, i] * matrix[i, j], one fused multiply-add after another from i = 0 on, as
// XNNPACK's GEMMs do for every output; [rows, inner] x [inner, width]. Strides count values from one row to the next.
void multiply_in_order(const float* x, int64_t x_stride, int64_t rows, int64_t inner, const float* matrix,
                       int64_t matrix_stride, int64_t width, float* outputs, int64_t output_stride);

}  // namespace qat::mobile
