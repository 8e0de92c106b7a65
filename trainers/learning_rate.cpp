#include "trainers/learning_rate.h"

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

}  // namespace qat
