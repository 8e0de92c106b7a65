// Mixture of experts: gemma4_architecture.md 2.8.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/projection.h"

namespace qat {

// The experts chosen for every token, best first, and their weights in the sum (fp32).
struct ExpertChoice {
  at::Tensor experts;  // int64 [T, experts_per_token]
  at::Tensor weights;  // fp32 [T, experts_per_token]
};

// `normed` [T, hidden]: hidden states after the router's norm and scales. Softmax over all experts and top-k in fp32.
ExpertChoice choose_experts(const at::Tensor& normed, const Projection& router, const at::Tensor& expert_scale,
                            int64_t experts_per_token);

// Weighted sum of the gated MLPs of those chosen of `experts`: x [T, hidden] -> [T, hidden]. The first half of an
// expert's gate_up rows is the gate. The sum is formed in fp32 and rounded once.
at::Tensor run_experts(const at::Tensor& x, const ExpertChoice& choice, int64_t experts, const Projection& gate_up,
                       const Projection& down);

}  // namespace qat
