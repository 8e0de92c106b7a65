// Rotary position embedding: gemma4_architecture.md 2.6.
#pragma once

#include <ATen/core/Tensor.h>

#include "gemma4/config.h"

namespace qat {

// Cosines and sines of the turning pairs: [T, 1, rotated_pairs] in the activations' dtype, computed in fp32.
struct RotaryAngles {
  at::Tensor cosine;
  at::Tensor sine;
};

// `positions`: fp32 [T].
RotaryAngles rotary_angles(const RopeConfig& rope, const at::Tensor& positions, at::ScalarType dtype);

// Turns the pairs (m, m + head_dim / 2) of x [T, heads, head_dim]; each operation rounds to x's dtype. Differentiable.
at::Tensor rotate(const at::Tensor& x, const RotaryAngles& angles);

}  // namespace qat
