// The activation of Gemma's MLPs.
#pragma once

#include <ATen/core/Tensor.h>

namespace qat {

// gelu_tanh(x), rounded to x's dtype. Differentiable.
at::Tensor gelu_tanh(const at::Tensor& x);

// gelu_tanh(gate) * up, two rounded operations. Differentiable; keeps only gate and up for the backward pass.
at::Tensor gated_gelu(const at::Tensor& gate, const at::Tensor& up);

}  // namespace qat
