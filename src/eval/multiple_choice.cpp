#include "eval/multiple_choice.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <utility>

#include "core/error.h"
#include "data/dataset.h"
#include "eval/logit_rows.h"
#include "eval/logits.h"

namespace qat {
namespace {

int64_t count_code_points(const std::string& text) {
  const auto begins_character = [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; };
  return std::ranges::count_if(text, begins_character);
}

void check_item(const ChoiceItem& item, int64_t vocabulary) {
  QAT_CHECK(!item.context.empty() && !item.choices.empty());
  const auto check = [&](const std::vector<int32_t>& tokens) {
    for (const int32_t token : tokens) {
      if (token >= 0 && token < vocabulary) continue;
      fail("line ", item.line, " of the data has token ", token, ", but the model's vocabulary has ids 0 to ",
           vocabulary - 1, ": use the tokenizer that belongs to the model");
    }
  };
  check(item.context);
  for (const ChoiceContinuation& choice : item.choices) {
    QAT_CHECK(choice.given >= 0 && choice.given < static_cast<int64_t>(choice.tokens.size()));
    QAT_CHECK(choice.characters > 0 && choice.bytes > 0);
    check(choice.tokens);
  }
}

// Tokens that all choices begin with before any of them is scored (sentences that differ in a word).
size_t common_given_tokens(const ChoiceItem& item) {
  const std::vector<int32_t>& first = item.choices.front().tokens;
  size_t common = static_cast<size_t>(item.choices.front().given);
  for (const ChoiceContinuation& choice : item.choices) {
    common = std::min(common, static_cast<size_t>(choice.given));
    const auto end =
        std::mismatch(first.begin(), first.begin() + static_cast<std::ptrdiff_t>(common), choice.tokens.begin()).first;
    common = static_cast<size_t>(end - first.begin());
  }
  return common;
}

// Questions that are read together: what a question's choices have in common once, then the choices after it.
class ChoiceBatch {
 public:
  int64_t tokens() const { return tokens_; }
  int64_t items() const { return items_; }

  void add(const ChoiceItem& item) {
    const size_t common = common_given_tokens(item);
    const auto begin_of = [&](const ChoiceContinuation& choice) {
      return choice.tokens.begin() + static_cast<std::ptrdiff_t>(common);
    };
    const size_t root = sequences_.size();
    BatchSequence shared{item.context, {}, std::nullopt};
    shared.tokens.insert(shared.tokens.end(), item.choices.front().tokens.begin(), begin_of(item.choices.front()));
    const auto scored_at_once = [&](const ChoiceContinuation& choice) {
      return static_cast<size_t>(choice.given) == common;
    };
    if (std::ranges::any_of(item.choices, scored_at_once)) {
      shared.wanted = {static_cast<int64_t>(shared.tokens.size()) - 1};
      for (size_t choice = 0; choice < item.choices.size(); ++choice) {
        if (scored_at_once(item.choices[choice])) score(choice, *begin_of(item.choices[choice]));
      }
      ++rows_;
    }
    push(std::move(shared));
    for (size_t choice = 0; choice < item.choices.size(); ++choice) {
      const ChoiceContinuation& continuation = item.choices[choice];
      // The last token is predicted, not read.
      BatchSequence own{{begin_of(continuation), continuation.tokens.end() - 1}, {}, root};
      if (own.tokens.empty()) continue;
      for (size_t i = std::max(static_cast<size_t>(continuation.given), common + 1); i < continuation.tokens.size();
           ++i) {
        own.wanted.push_back(static_cast<int64_t>(i - common) - 1);
        score(choice, continuation.tokens[i]);
        ++rows_;
      }
      push(std::move(own));
    }
    ++items_;
  }

  // Per item, the summed log-probabilities of its choices; `items` are those that were added.
  std::vector<std::vector<double>> scores(LanguageModel& model, std::span<const ChoiceItem> items) const {
    std::vector<std::vector<double>> scores;
    for (const ChoiceItem& item : items) scores.emplace_back(item.choices.size(), 0.0);
    const auto vocabulary = static_cast<size_t>(model.vocabulary_size());
    auto next = scored_.begin();
    visit_logits(model, model.hidden_rows(sequences_), [&](size_t first, std::span<const float> logits) {
      const size_t count = logits.size() / vocabulary;
      const auto row = [&](size_t i) { return logits.subspan(i * vocabulary, vocabulary); };
      std::vector<double> normalisations(count);
      for_each_row(count, vocabulary, 0, [&](size_t i) { normalisations[i] = log_sum_exp(row(i)); });
      for (; next != scored_.end() && next->row < first + count; ++next) {
        const size_t i = next->row - first;
        scores[next->item][next->choice] += static_cast<double>(row(i)[next->token]) - normalisations[i];
      }
    });
    QAT_CHECK(next == scored_.end());
    return scores;
  }

 private:
  struct Scored {
    size_t row;
    size_t item;
    size_t choice;
    size_t token;
  };

  void score(size_t choice, int32_t token) {
    scored_.push_back({rows_, static_cast<size_t>(items_), choice, static_cast<size_t>(token)});
  }

  void push(BatchSequence sequence) {
    tokens_ += static_cast<int64_t>(sequence.tokens.size());
    sequences_.push_back(std::move(sequence));
  }

  std::vector<BatchSequence> sequences_;
  std::vector<Scored> scored_;  // in the order of rows
  size_t rows_ = 0;
  int64_t tokens_ = 0;
  int64_t items_ = 0;
};

int64_t best_choice(const ChoiceItem& item, const std::vector<double>& scores,
                    int64_t ChoiceContinuation::*length = nullptr) {
  size_t best = 0;
  std::vector<double> normalised = scores;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (length) normalised[i] /= static_cast<double>(item.choices[i].*length);
    if (normalised[i] > normalised[best]) best = i;
  }
  return static_cast<int64_t>(best);
}

ChoiceResult result_of(const ChoiceItem& item, std::vector<double> scores) {
  if (!std::ranges::all_of(scores, [](double score) { return std::isfinite(score); })) {
    fail("the model's logits for line ", item.line,
         " of the data are not finite: its weights or scales hold NaN or "
         "infinity, or its arithmetic overflowed; try --dtype float32");
  }
  ChoiceResult result;
  result.line = item.line;
  result.answer = item.answer;
  result.chosen = best_choice(item, scores);
  result.chosen_by_characters = best_choice(item, scores, &ChoiceContinuation::characters);
  result.chosen_by_bytes = best_choice(item, scores, &ChoiceContinuation::bytes);
  result.correct = result.chosen == item.answer;
  result.correct_by_characters = result.chosen_by_characters == item.answer;
  result.correct_by_bytes = result.chosen_by_bytes == item.answer;
  result.log_likelihoods = std::move(scores);
  return result;
}

Accuracy count_correct(std::span<const ChoiceResult> results, bool ChoiceResult::*field) {
  int64_t correct = 0;
  for (const ChoiceResult& result : results) correct += result.*field ? 1 : 0;
  return accuracy_of(correct, static_cast<int64_t>(results.size()));
}

// Token ids of a text that the model reads, and of a text after it that is scored.
std::pair<std::vector<int32_t>, std::vector<int32_t>> read_and_scored(const Tokenizer& tokenizer, std::string text,
                                                                      const std::string& scored,
                                                                      const std::optional<ChatTemplate>& chat_template,
                                                                      const RenderOptions& render) {
  const bool parse_special = render.parse_special_in_content;
  if (chat_template) {
    return {tokenize_prompt(tokenizer, text, chat_template, render), tokenizer.encode(scored, parse_special)};
  }
  const size_t end = text.find_last_not_of(' ') == std::string::npos ? 0 : text.find_last_not_of(' ') + 1;
  const std::string delimiter = text.substr(end) + " ";
  text.resize(end);
  const std::vector<int32_t> plain = tokenizer.encode(text, parse_special);
  const std::vector<int32_t> whole = tokenizer.encode(text + delimiter + scored, parse_special);
  const auto shared = static_cast<std::ptrdiff_t>(std::min(plain.size(), whole.size()));
  return {tokenize_prompt(tokenizer, text, chat_template, render), {whole.begin() + shared, whole.end()}};
}

}  // namespace

ChoiceItem make_choice_item(const Tokenizer& tokenizer, const MultipleChoiceQuestion& question,
                            const std::optional<ChatTemplate>& chat_template, const RenderOptions& render) {
  ChoiceItem item;
  item.answer = question.answer;
  item.line = question.line;
  const bool has_ending = !question.ending.empty();
  for (const std::string& choice : question.choices) {
    const std::string& read = has_ending ? choice : question.question;
    const std::string& scored = has_ending ? question.ending : choice;
    const auto [context, tokens] = read_and_scored(tokenizer, question.preface + read, scored, chat_template, render);
    if (choice.empty() || tokens.empty()) {
      fail("line ", question.line, " of the data has the choice \"", choice,
           "\", which adds no token to the question: give every choice some text");
    }
    ChoiceContinuation continuation;
    continuation.characters = count_code_points(choice);
    continuation.bytes = static_cast<int64_t>(choice.size());
    // Choices that are read have only BOS in common.
    item.context = has_ending ? std::vector<int32_t>{context.front()} : context;
    continuation.tokens.assign(context.begin() + static_cast<std::ptrdiff_t>(item.context.size()), context.end());
    continuation.given = static_cast<int64_t>(continuation.tokens.size());
    continuation.tokens.insert(continuation.tokens.end(), tokens.begin(), tokens.end());
    item.choices.push_back(std::move(continuation));
  }
  return item;
}

std::vector<ChoiceResult> measure_choices(LanguageModel& model, std::span<const ChoiceItem> items,
                                          const std::function<void(int64_t done, int64_t total)>& on_progress) {
  for (const ChoiceItem& item : items) check_item(item, model.vocabulary_size());
  std::vector<ChoiceResult> results;
  results.reserve(items.size());
  while (results.size() < items.size()) {
    const auto left = items.subspan(results.size());
    ChoiceBatch batch;
    for (const ChoiceItem& item : left) {
      if (batch.tokens() >= kBatchTokens) break;
      batch.add(item);
    }
    const auto scores = batch.scores(model, left.first(static_cast<size_t>(batch.items())));
    for (size_t i = 0; i < scores.size(); ++i) results.push_back(result_of(left[i], scores[i]));
    if (on_progress) on_progress(static_cast<int64_t>(results.size()), static_cast<int64_t>(items.size()));
  }
  return results;
}

Accuracy accuracy_of(int64_t correct, int64_t items) {
  Accuracy accuracy{correct, items, 0, wilson_interval(correct, items)};
  if (items > 0) accuracy.share = static_cast<double>(correct) / static_cast<double>(items);
  return accuracy;
}

ChoiceSummary summarize(std::span<const ChoiceResult> results) {
  return {count_correct(results, &ChoiceResult::correct), count_correct(results, &ChoiceResult::correct_by_characters),
          count_correct(results, &ChoiceResult::correct_by_bytes)};
}

std::vector<bool> correct_items(std::span<const ChoiceResult> results, bool ChoiceResult::*field) {
  std::vector<bool> correct;
  correct.reserve(results.size());
  for (const ChoiceResult& result : results) correct.push_back(result.*field);
  return correct;
}

}  // namespace qat
