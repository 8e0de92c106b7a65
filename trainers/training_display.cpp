#include "trainers/training_display.h"

#include <unistd.h>

#include <array>
#include <cstdio>

#include "core/error.h"

namespace qat {

namespace {

constexpr double kPlainLineSeconds = 20;

bool stderr_is_terminal() { return ::isatty(STDERR_FILENO) == 1; }

std::string formatted(const char* format, double value) {
  std::array<char, 32> buffer{};
  std::snprintf(buffer.data(), buffer.size(), format, value);
  return buffer.data();
}

}  // namespace

std::string format_number(double value, int digits) {
  return formatted(("%." + std::to_string(digits) + "g").c_str(), value);
}

TrainingDisplay::TrainingDisplay(int64_t first_step, int64_t steps)
    : progress_("train", steps, "steps"),
      first_step_(first_step),
      steps_(steps),
      start_(std::chrono::steady_clock::now()) {}

double TrainingDisplay::elapsed() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

void TrainingDisplay::step(const StepReport& report, double tokens_per_second) {
  const double seconds = elapsed();
  const bool plain = !stderr_is_terminal();
  if (plain && seconds - last_plain_line_ < kPlainLineSeconds && report.step != steps_) return;
  const auto done = static_cast<double>(report.step - first_step_);
  const double left = seconds / done * static_cast<double>(steps_ - report.step);
  std::string line = join("step ", report.step, "/", steps_, "  loss ", formatted("%.3f", report.loss()));
  if (kl_) line += "  kl " + formatted("%.4f", *kl_);
  line += join("  lr ", formatted("%.1e", report.learning_rate), "  grad ", format_number(report.gradient_norm, 3),
               "  ", format_count(tokens_per_second), " tok/s  left ", format_duration(left));
  if (plain) {
    std::fprintf(stderr, "%s\n", line.c_str());
    last_plain_line_ = seconds;
  } else {
    progress_.show(line);
  }
}

void TrainingDisplay::evaluation(int64_t step, const HeldOutResult& result, bool best) {
  kl_ = result.kl;
  note(join("step ", step, ": held-out loss ", formatted("%.4f", result.loss),
            result.kl ? "  kl " + formatted("%.5f", *result.kl) : "", best ? "  (best so far)" : ""));
}

void TrainingDisplay::note(const std::string& text) {
  std::fprintf(stderr, "%s%s\n", stderr_is_terminal() ? "\r\033[K" : "", text.c_str());
}

}  // namespace qat
