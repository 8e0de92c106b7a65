// What changes over a run: learning rates, and what is quantized.
#pragma once

#include <cstdint>

#include "fake_quant/fake_quant_set.h"
#include "trainers/train_config.h"

namespace qat {

// The rate of step `step` (from 0) of `steps`: linear warm-up that reaches learning_rate at step warmup_steps - 1, then
// half a cosine that reaches learning_rate * final_ratio at the last step.
double learning_rate_at(const OptimizerConfig& optimizer, int64_t step, int64_t steps);

// The rate of scales: the same curve, 0 in the last part of the run (quantization.scale_freeze_share), so that what is
// exported has been settled for a while.
double scale_learning_rate_at(const TrainConfig& config, int64_t step);

// What step `step` quantizes: weights first, activations and caches when their turn has come.
QuantizedParts quantized_parts_at(const QuantizationConfig& config, int64_t step);

}  // namespace qat
