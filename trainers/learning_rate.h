// The learning rate over a run.
#pragma once

#include <cstdint>

#include "trainers/train_config.h"

namespace qat {

// The rate of step `step` (from 0) of `steps`: linear warm-up that reaches learning_rate at step warmup_steps - 1, then
// half a cosine that reaches learning_rate * final_ratio at the last step.
double learning_rate_at(const OptimizerConfig& optimizer, int64_t step, int64_t steps);

}  // namespace qat
