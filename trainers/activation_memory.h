// How many bytes a forward pass keeps for the backward pass, counted from the shapes of the model: layer.cpp and the
// autograd functions that it calls say which tensors those are.
#pragma once

#include <cstdint>
#include <vector>

#include "gemma4/quant_plan.h"

namespace qat {

struct ActivationBytes {
  std::vector<int64_t> layers;  // per token, by layer: the input and everything else that going back through it needs
  std::vector<int64_t> inputs;  // of these, what a layer keeps that is computed again
  int64_t ends = 0;             // per token: embeddings, and what follows the last layer
  int64_t widest = 0;           // values per token of the widest tensor inside a layer

  // Per token, of all layers and the ends.
  int64_t kept(bool recomputed) const;
};

// `value_bytes`: 4 or 2, of the model's dtype. `plan` may be null.
ActivationBytes activation_bytes(const Gemma4Config& config, const ResolvedPlan* plan, int64_t value_bytes);

}  // namespace qat
