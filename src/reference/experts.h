// The router's choice of experts.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "reference/arithmetic.h"

namespace qat {

struct ExpertChoice {
  int64_t expert;
  float weight;
};

// The `count` experts of the largest router logits, in falling order, with their softmax probabilities over all experts
// divided by their sum (gemma4_architecture.md 2.8; the sum is held above 2^-14 as llama.cpp does).
std::vector<ExpertChoice> choose_experts(const Arithmetic& arithmetic, std::span<const float> router_logits,
                                         int64_t count);

}  // namespace qat
