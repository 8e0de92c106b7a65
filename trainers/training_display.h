// What a person sees of a run: a summary before, a live line during (a plain line now and then where stderr is no
// terminal).
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "core/terminal.h"
#include "trainers/held_out.h"
#include "trainers/trainer.h"

namespace qat {

class TrainingDisplay {
 public:
  // The time left is judged by the steps from `first_step` on.
  TrainingDisplay(int64_t first_step, int64_t steps);

  // "step 120/5000  loss 2.413  kl 0.081  lr 1.0e-05  grad 0.92  1.8k tok/s  left 2h14m"
  void step(const StepReport& report, double tokens_per_second);
  void evaluation(int64_t step, const HeldOutResult& result, bool best);
  // A line that stays.
  void note(const std::string& text);

 private:
  double elapsed() const;

  Progress progress_;
  int64_t first_step_;
  int64_t steps_;
  std::optional<double> kl_;
  std::chrono::steady_clock::time_point start_;
  double last_plain_line_ = -1e9;
};

// The value with `digits` significant digits: "2.413", "1.0e-05".
std::string format_number(double value, int digits);

}  // namespace qat
