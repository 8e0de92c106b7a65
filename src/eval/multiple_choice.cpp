#include "eval/multiple_choice.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "core/error.h"
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
    QAT_CHECK(!choice.tokens.empty() && choice.characters > 0 && choice.bytes > 0);
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
  const auto first_row = static_cast<int64_t>(item.context.size()) - 1;
  std::vector<double> scores(item.choices.size(), 0.0);
  for (const auto& [input, choices] : choices_by_input(item)) {
    size_t row = 0;
    model.evaluate(input, first_row, [&](int64_t, std::span<const float> logits) {
      for (size_t offset = 0; offset < logits.size(); offset += vocabulary, ++row) {
        const std::span<const float> values = logits.subspan(offset, vocabulary);
        const double normalisation = log_sum_exp(values);
        for (const size_t choice : choices) {
          const auto token = static_cast<size_t>(item.choices[choice].tokens[row]);
          scores[choice] += static_cast<double>(values[token]) - normalisation;
        }
      }
    });
    QAT_CHECK(row == input.size() - static_cast<size_t>(first_row));
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
  Accuracy accuracy;
  accuracy.items = static_cast<int64_t>(results.size());
  for (const ChoiceResult& result : results) accuracy.correct += result.*field ? 1 : 0;
  if (accuracy.items > 0) accuracy.share = static_cast<double>(accuracy.correct) / static_cast<double>(accuracy.items);
  accuracy.interval = wilson_interval(accuracy.correct, accuracy.items);
  return accuracy;
}

}  // namespace

ChoiceItem make_choice_item(const Tokenizer& tokenizer, const MultipleChoiceQuestion& question,
                            const std::optional<ChatTemplate>& chat_template, const RenderOptions& render) {
  ChoiceItem item;
  item.answer = question.answer;
  item.line = question.line;
  std::string text = question.question;
  std::string delimiter;
  if (!chat_template) {
    const size_t end = text.find_last_not_of(' ') == std::string::npos ? 0 : text.find_last_not_of(' ') + 1;
    delimiter = text.substr(end) + " ";
    text.resize(end);
  }
  item.context = tokenize_prompt(tokenizer, text, chat_template, render);
  const bool parse_special = render.parse_special_in_content;
  const std::vector<int32_t> plain = tokenizer.encode(text, parse_special);
  for (const std::string& choice : question.choices) {
    ChoiceContinuation continuation;
    if (chat_template) {
      continuation.tokens = tokenizer.encode(choice, parse_special);
    } else {
      const std::vector<int32_t> whole = tokenizer.encode(text + delimiter + choice, parse_special);
      const size_t shared = std::min(plain.size(), whole.size());
      continuation.tokens.assign(whole.begin() + static_cast<std::ptrdiff_t>(shared), whole.end());
    }
    continuation.characters = count_code_points(choice);
    continuation.bytes = static_cast<int64_t>(choice.size());
    if (choice.empty() || continuation.tokens.empty()) {
      fail("line ", question.line, " of the data has the choice \"", choice,
           "\", which adds no token to the question: give every choice some text");
    }
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
