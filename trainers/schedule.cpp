#include "trainers/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace qat {

double learning_rate_at(const OptimizerConfig& optimizer, int64_t step, int64_t steps) {
  if (step < optimizer.warmup_steps) {
    return optimizer.learning_rate * static_cast<double>(step + 1) / static_cast<double>(optimizer.warmup_steps);
  }
  const auto length = static_cast<double>(std::max<int64_t>(1, steps - 1 - optimizer.warmup_steps));
  const double progress = std::min(1.0, static_cast<double>(step - optimizer.warmup_steps) / length);
  const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return optimizer.learning_rate * (optimizer.final_ratio + (1 - optimizer.final_ratio) * cosine);
}

double scale_learning_rate_at(const TrainConfig& config, int64_t step) {
  const auto first_frozen = static_cast<double>(config.steps) * (1 - config.quantization.scale_freeze_share);
  if (static_cast<double>(step) >= first_frozen) return 0;
  const double share = learning_rate_at(config.optimizer, step, config.steps) / config.optimizer.learning_rate;
  return config.quantization.scale_learning_rate * share;
}

QuantizedParts quantized_parts_at(const QuantizationConfig& config, int64_t step) {
  return {step >= config.start_step, step >= std::max(config.start_step, config.activation_start_step),
          step >= std::max(config.start_step, config.cache_start_step)};
}

}  // namespace qat
