// Root-mean-square norm over the last dimension: gemma4_architecture.md 2.3.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace qat {

// x / sqrt(mean(x^2) + epsilon) * (offset + weight), computed in fp32 and rounded once to x's dtype. Without a weight
// the last factor is missing. Differentiable.
at::Tensor rms_norm(const at::Tensor& x, const std::optional<at::Tensor>& weight, double epsilon, double offset);

}  // namespace qat
