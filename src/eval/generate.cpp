#include "eval/generate.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "eval/logits.h"

namespace qat {
namespace {

void check_tokens(std::span<const int32_t> tokens, int64_t vocabulary, const char* what) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= 0 && tokens[i] < vocabulary) continue;
    fail("token ", i + 1, " of the ", what, " is ", tokens[i], ", but the model's vocabulary has ids 0 to ",
         vocabulary - 1, ": use the tokenizer that belongs to the model");
  }
}

void check_finite(std::span<const float> logits, size_t position) {
  if (std::all_of(logits.begin(), logits.end(), [](float logit) { return std::isfinite(logit); })) return;
  fail("the model's logits after ", position,
       " tokens are not finite: its weights or scales hold NaN or infinity, or "
       "its arithmetic overflowed; try --dtype float32");
}

}  // namespace

std::vector<GeneratedStep> generate(LanguageModel& model, std::span<const int32_t> prompt,
                                    const GenerateOptions& options) {
  if (prompt.empty()) fail("the prompt has no tokens: give some text, or at least the token <bos>");
  check_tokens(prompt, model.vocabulary_size(), "prompt");
  check_tokens(options.forced, model.vocabulary_size(), "forced continuation");
  const bool forced = !options.forced.empty();
  const auto count = forced ? options.forced.size() : static_cast<size_t>(std::max<int64_t>(options.max_new, 0));

  std::vector<GeneratedStep> steps;
  if (count == 0) return steps;
  const auto session = model.start();
  std::span<const float> logits = session->append(prompt);
  for (;;) {
    check_finite(logits, prompt.size() + steps.size());
    const int32_t token = forced ? options.forced[steps.size()] : greedy_token(logits);
    steps.push_back({token, top_log_probabilities(logits, options.top)});
    if (options.on_step) options.on_step(steps.back());
    const bool stops = !forced && std::ranges::find(options.stop_tokens, token) != options.stop_tokens.end();
    if (stops || steps.size() == count || (options.stop_when && options.stop_when())) return steps;
    logits = session->append(std::span(&token, 1));
  }
}

std::vector<GreedyAgreement> greedy_agreement(LanguageModel& model, LanguageModel& reference,
                                              std::span<const std::vector<int32_t>> prompts, int64_t max_new,
                                              std::span<const int32_t> stop_tokens) {
  GenerateOptions options;
  options.max_new = max_new;
  options.stop_tokens.assign(stop_tokens.begin(), stop_tokens.end());
  std::vector<GreedyAgreement> results;
  results.reserve(prompts.size());
  for (const std::vector<int32_t>& prompt : prompts) {
    const std::vector<GeneratedStep> wanted = generate(reference, prompt, options);
    // Up to its first difference, feeding the model the reference's tokens is feeding it its own.
    GreedyAgreement result{static_cast<int64_t>(wanted.size()), 0};
    const auto session = model.start();
    std::span<const float> logits = session->append(prompt);
    for (const GeneratedStep& step : wanted) {
      check_finite(logits, prompt.size() + static_cast<size_t>(result.agreeing));
      if (greedy_token(logits) != step.token) break;
      if (++result.agreeing < result.tokens) logits = session->append(std::span(&step.token, 1));
    }
    results.push_back(result);
  }
  return results;
}

double agreement_share(std::span<const GreedyAgreement> prompts) {
  int64_t tokens = 0;
  int64_t agreeing = 0;
  for (const GreedyAgreement& prompt : prompts) {
    tokens += prompt.tokens;
    agreeing += prompt.agreeing;
  }
  return tokens > 0 ? static_cast<double>(agreeing) / static_cast<double>(tokens) : 0.0;
}

}  // namespace qat
