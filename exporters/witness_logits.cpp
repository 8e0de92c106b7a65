#include "exporters/witness_logits.h"

#include <cmath>

#include "core/error.h"

namespace qat {

void WitnessLogits::compare(LanguageModel& model, const std::function<void(int64_t)>& start_prompt) {
  const auto vocabulary = static_cast<size_t>(model.vocabulary_size());
  for (size_t prompt = 0; prompt < witness_.prompts.size(); ++prompt) {
    start_prompt(positions_);
    model.evaluate(witness_.prompts[prompt].tokens, 0, [&](int64_t first, std::span<const float> rows) {
      for (size_t row = 0; row * vocabulary < rows.size(); ++row) {
        compare_position(prompt, static_cast<size_t>(first) + row, rows.subspan(row * vocabulary, vocabulary));
      }
    });
  }
}

// A witness position stands for its largest logits and the sum over all of them.
void WitnessLogits::compare_position(size_t prompt, size_t position, std::span<const float> logits) {
  const WitnessPosition& expected = witness_.prompts[prompt].positions[position];
  positions_ += 1;
  const auto note = [&](double difference) {
    // A NaN must count as the largest difference there is.
    const double size = std::isnan(difference) ? HUGE_VAL : difference;
    if (size <= largest_) return;
    largest_ = size;
    where_largest_ = join("witness prompt ", prompt, ", position ", position);
  };
  for (size_t i = 0; i < expected.top_tokens.size(); ++i) {
    const auto token = static_cast<size_t>(expected.top_tokens[i]);
    note(token < logits.size() ? std::abs(static_cast<double>(logits[token]) - expected.top_logits[i]) : HUGE_VAL);
  }
  note(std::abs(static_cast<double>(witness_position(logits).log_sum_exp) - expected.log_sum_exp));
}

std::string WitnessLogits::fault() const {
  if (largest_ <= kWitnessTolerance) return "";
  return join(where_largest_, ": logits of the reference inference differ from the witness by ", largest_,
              " (tolerance ", kWitnessTolerance, ")");
}

}  // namespace qat
