#include "eval/generate.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "eval/logit_rows.h"
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

// Follows each continuation up to the first token that the model would not have chosen.
void count_agreeing(LanguageModel& model, std::span<const BatchSequence> batch, std::span<const size_t> prompt_of_row,
                    std::span<const std::vector<int32_t>> prompts, std::span<const std::vector<int32_t>> continuations,
                    std::vector<GreedyAgreement>& results) {
  const auto vocabulary = static_cast<size_t>(model.vocabulary_size());
  size_t place = 0;  // in the continuation
  visit_logits(model, model.hidden_rows(batch), [&](size_t first, std::span<const float> logits) {
    for (size_t i = 0; i < logits.size() / vocabulary; ++i) {
      const size_t prompt = prompt_of_row[first + i];
      place = first + i > 0 && prompt_of_row[first + i - 1] == prompt ? place + 1 : 0;
      GreedyAgreement& result = results[prompt];
      if (result.agreeing != static_cast<int64_t>(place)) continue;
      const auto row = logits.subspan(i * vocabulary, vocabulary);
      check_finite(row, prompts[prompt].size() + place);
      if (greedy_token(row) == continuations[prompt][place]) ++result.agreeing;
    }
  });
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

std::vector<std::vector<int32_t>> greedy_continuations(LanguageModel& reference,
                                                       std::span<const std::vector<int32_t>> prompts, int64_t max_new,
                                                       std::span<const int32_t> stop_tokens) {
  GenerateOptions options;
  options.max_new = max_new;
  options.stop_tokens.assign(stop_tokens.begin(), stop_tokens.end());
  std::vector<std::vector<int32_t>> continuations;
  for (const std::vector<int32_t>& prompt : prompts) {
    auto& tokens = continuations.emplace_back();
    for (const GeneratedStep& step : generate(reference, prompt, options)) tokens.push_back(step.token);
  }
  return continuations;
}

std::vector<GreedyAgreement> greedy_agreement(LanguageModel& model, std::span<const std::vector<int32_t>> prompts,
                                              std::span<const std::vector<int32_t>> continuations) {
  QAT_CHECK(prompts.size() == continuations.size());
  std::vector<GreedyAgreement> results;
  while (results.size() < prompts.size()) {
    std::vector<BatchSequence> batch;
    std::vector<size_t> prompt_of_row;
    for (int64_t tokens = 0; results.size() < prompts.size() && tokens < kBatchTokens;) {
      const size_t prompt = results.size();
      const std::vector<int32_t>& continuation = continuations[prompt];
      results.push_back({static_cast<int64_t>(continuation.size()), 0});
      if (continuation.empty()) continue;
      BatchSequence& sequence = batch.emplace_back(BatchSequence{prompts[prompt], {}, std::nullopt});
      for (size_t i = 0; i < continuation.size(); ++i) {
        sequence.wanted.push_back(static_cast<int64_t>(prompts[prompt].size() + i) - 1);
        prompt_of_row.push_back(prompt);
      }
      sequence.tokens.insert(sequence.tokens.end(), continuation.begin(), continuation.end() - 1);
      tokens += static_cast<int64_t>(sequence.tokens.size());
    }
    if (!batch.empty()) count_agreeing(model, batch, prompt_of_row, prompts, continuations, results);
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
