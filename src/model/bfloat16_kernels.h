// Elementwise parts of a layer in BF16, each in one pass over memory, computed in fp32 and rounded where it is said;
// for every instruction set. What a thread does is up to the caller.
#pragma once

#include <cstdint>

#include "core/float_types.h"

namespace qat::bfloat16_kernels {

// One row of x / sqrt(mean(x^2) + epsilon) * factors, rounded once. Returns the inverse of the root.
float rms_norm(const BFloat16* x, int64_t width, const float* factors, double epsilon, BFloat16* result);

// The gradient of such a row; adds that of its factors to `of_factors`. Either may be null.
void rms_norm_backward(const BFloat16* x, const BFloat16* gradient, int64_t width, const float* factors, float inverse,
                       BFloat16* of_x, float* of_factors);

// Values that gated_gelu() takes at least.
inline constexpr int64_t kFewestValues = 16;

// gelu_tanh(gate) and its product with `up`, both rounded.
void gated_gelu(const BFloat16* gate, const BFloat16* up, int64_t count, BFloat16* result);

// The gradients of gate (rounded once) and up (with the rounded gelu_tanh).
void gated_gelu_backward(const BFloat16* gate, const BFloat16* up, const BFloat16* gradient, int64_t count,
                         BFloat16* of_gate, BFloat16* of_up);

}  // namespace qat::bfloat16_kernels
