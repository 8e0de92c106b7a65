// The logits of a witness, held against those of the reference inference.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "gemma4/language_model.h"
#include "gemma4/witness.h"

namespace qat {

// Witness logits and the reference's `float` arithmetic differ only by the order of fp32 sums.
inline constexpr double kWitnessTolerance = 1e-3;

class WitnessLogits {
 public:
  // `witness` must outlive this.
  explicit WitnessLogits(const Witness& witness) : witness_(witness) {}

  // Runs all prompts. `start_prompt` is told before each how many witness positions stand before it.
  void compare(LanguageModel& model, const std::function<void(int64_t)>& start_prompt);

  int64_t positions() const { return positions_; }
  double largest_difference() const { return largest_; }
  // Empty if all logits are within the tolerance.
  std::string fault() const;

 private:
  void compare_position(size_t prompt, size_t position, std::span<const float> logits);

  const Witness& witness_;
  int64_t positions_ = 0;
  double largest_ = 0;
  std::string where_largest_;
};

}  // namespace qat
