// Multiple-choice accuracy by the conventions of lm-evaluation-harness: the choice with the highest summed
// log-probability wins; acc_norm divides by its characters, acc_bytes by its UTF-8 bytes (qat_methods 6.2).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "data/chat_template.h"
#include "data/question.h"
#include "data/tokenizer.h"
#include "eval/statistics.h"
#include "gemma4/language_model.h"

namespace qat {

struct ChoiceContinuation {
  std::vector<int32_t> tokens;  // at least one that is scored
  int64_t given = 0;            // so many of them come first and are read, not scored
  int64_t characters = 1;       // code points and bytes of the choice without its leading delimiter
  int64_t bytes = 1;
};

// A question as the model reads it.
struct ChoiceItem {
  std::vector<int32_t> context;  // at least one token (BOS)
  std::vector<ChoiceContinuation> choices;
  int64_t answer = 0;  // index into choices
  int64_t line = 0;    // of the data file
};

// Without a chat template: BOS, the preface, the question, a space and the choice; trailing spaces of the question move
// to the choice. With one: preface and question are the user's turn and the choice begins the answer without a
// delimiter. Question and choice are tokenized as one text, and what exceeds the question's own tokens is the
// continuation. Of a question with an ending, the choice takes the question's place and the ending the choice's. Throws
// Error with the line for an empty choice.
ChoiceItem make_choice_item(const Tokenizer& tokenizer, const MultipleChoiceQuestion& question,
                            const std::optional<ChatTemplate>& chat_template, const RenderOptions& render);

struct ChoiceResult {
  int64_t line = 0;
  int64_t answer = 0;
  std::vector<double> log_likelihoods;  // per choice
  int64_t chosen = 0;                   // by log-likelihood; ties: the first
  int64_t chosen_by_characters = 0;
  int64_t chosen_by_bytes = 0;
  bool correct = false;
  bool correct_by_characters = false;
  bool correct_by_bytes = false;
};

// One result per item. Several questions are read together, and what a question's choices have in common once. Throws
// Error for tokens outside the vocabulary and logits that are not finite.
std::vector<ChoiceResult> measure_choices(LanguageModel& model, std::span<const ChoiceItem> items,
                                          const std::function<void(int64_t done, int64_t total)>& on_progress = {});

struct Accuracy {
  int64_t correct = 0;
  int64_t items = 0;
  double share = 0;
  Interval interval;  // Wilson, 95 %
};
Accuracy accuracy_of(int64_t correct, int64_t items);

struct ChoiceSummary {
  Accuracy accuracy;                // acc
  Accuracy accuracy_by_characters;  // acc_norm
  Accuracy accuracy_by_bytes;       // acc_bytes
};

ChoiceSummary summarize(std::span<const ChoiceResult> results);

// Correctness per item, for exact_mcnemar: correct_items(results, &ChoiceResult::correct).
std::vector<bool> correct_items(std::span<const ChoiceResult> results, bool ChoiceResult::*field);

}  // namespace qat
