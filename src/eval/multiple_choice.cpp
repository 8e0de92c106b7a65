#include "eval/multiple_choice.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "core/error.h"
#include "data/dataset.h"
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

// What the model reads to score a choice: everything but its last token. Choices of one token (letters) share it.
std::map<std::vector<int32_t>, std::vector<size_t>> choices_by_input(const ChoiceItem& item) {
  std::map<std::vector<int32_t>, std::vector<size_t>> inputs;
  for (size_t choice = 0; choice < item.choices.size(); ++choice) {
    const std::vector<int32_t>& tokens = item.choices[choice].tokens;
    std::vector<int32_t> input = item.context;
    input.insert(input.end(), tokens.begin(), tokens.end() - 1);
    inputs[std::move(input)].push_back(choice);
  }
  return inputs;
}

std::vector<double> score_choices(LanguageModel& model, const ChoiceItem& item) {
  const auto vocabulary = static_cast<size_t>(model.vocabulary_size());
  std::vector<double> scores(item.choices.size(), 0.0);
  for (const auto& [input, choices] : choices_by_input(item)) {
    auto row = input.size();  // of item.choices[…].tokens: the token that the row predicts
    for (const size_t choice : choices) row = std::min(row, static_cast<size_t>(item.choices[choice].given));
    const auto first_row = static_cast<int64_t>(item.context.size() + row) - 1;
    model.evaluate(input, first_row, [&](int64_t, std::span<const float> logits) {
      for (size_t offset = 0; offset < logits.size(); offset += vocabulary, ++row) {
        const std::span<const float> values = logits.subspan(offset, vocabulary);
        const double normalisation = log_sum_exp(values);
        for (const size_t choice : choices) {
          if (static_cast<int64_t>(row) < item.choices[choice].given) continue;
          const auto token = static_cast<size_t>(item.choices[choice].tokens[row]);
          scores[choice] += static_cast<double>(values[token]) - normalisation;
        }
      }
    });
    QAT_CHECK(row == input.size() + 1 - item.context.size());
  }
  return scores;
}

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
  std::vector<ChoiceResult> results;
  results.reserve(items.size());
  for (const ChoiceItem& item : items) {
    check_item(item, model.vocabulary_size());
    ChoiceResult result;
    result.line = item.line;
    result.answer = item.answer;
    result.log_likelihoods = score_choices(model, item);
    if (!std::ranges::all_of(result.log_likelihoods, [](double score) { return std::isfinite(score); })) {
      fail("the model's logits for line ", item.line,
           " of the data are not finite: its weights or scales hold NaN or "
           "infinity, or its arithmetic overflowed; try --dtype float32");
    }
    result.chosen = best_choice(item, result.log_likelihoods);
    result.chosen_by_characters = best_choice(item, result.log_likelihoods, &ChoiceContinuation::characters);
    result.chosen_by_bytes = best_choice(item, result.log_likelihoods, &ChoiceContinuation::bytes);
    result.correct = result.chosen == item.answer;
    result.correct_by_characters = result.chosen_by_characters == item.answer;
    result.correct_by_bytes = result.chosen_by_bytes == item.answer;
    results.push_back(std::move(result));
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
