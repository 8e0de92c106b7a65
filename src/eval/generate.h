// Greedy decoding, free or teacher-forced, and how long two models' greedy continuations agree.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "gemma4/language_model.h"

namespace qat {

// One new token, with the distribution it was chosen from.
struct GeneratedStep {
  int32_t token = 0;
  std::vector<std::pair<int32_t, float>> top;  // (id, log-probability), most likely first
};

struct GenerateOptions {
  int64_t max_new = 128;
  int64_t top = 0;                   // entries of GeneratedStep::top
  std::vector<int32_t> stop_tokens;  // the step that gives one of these is the last
  // Teacher forcing: these tokens are taken instead of the greedy ones, exactly so many, and no token stops.
  std::vector<int32_t> forced;
  std::function<void(const GeneratedStep&)> on_step;  // for streaming output
  std::function<bool()> stop_when;                    // asked after each step: true makes it the last
};

// The steps after `prompt`; a stop token is the last step's token. Throws Error for an empty prompt, a token outside
// the vocabulary and logits that are not finite.
std::vector<GeneratedStep> generate(LanguageModel& model, std::span<const int32_t> prompt,
                                    const GenerateOptions& options);

// Of one prompt: how many greedy tokens the reference made, and how many of them the model makes too before the first
// difference.
struct GreedyAgreement {
  int64_t tokens = 0;
  int64_t agreeing = 0;
};

// What the reference goes on to say after each prompt: at most `max_new` tokens, ending after a stop token.
std::vector<std::vector<int32_t>> greedy_continuations(LanguageModel& reference,
                                                       std::span<const std::vector<int32_t>> prompts, int64_t max_new,
                                                       std::span<const int32_t> stop_tokens);
// One entry per prompt. Up to the first difference, reading the reference's tokens is reading the model's own: nothing
// is generated, and many prompts are read together.
std::vector<GreedyAgreement> greedy_agreement(LanguageModel& model, std::span<const std::vector<int32_t>> prompts,
                                              std::span<const std::vector<int32_t>> continuations);

// Agreeing tokens over all tokens.
double agreement_share(std::span<const GreedyAgreement> prompts);

}  // namespace qat
