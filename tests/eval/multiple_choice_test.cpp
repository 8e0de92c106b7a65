#include "eval/multiple_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/random.h"
#include "data/dataset.h"
#include "data/small_tokenizer.h"
#include "eval/table_model.h"
#include "support/expect_error.h"
#include "support/fresh_seed.h"

namespace qat {
namespace {

using testing::expect_error;
using testing::fresh_seed;
using testing::small_tokenizer;

TableModel model() {
  return TableModel({{0.1, 0.6, 0.2, 0.1}, {0.25, 0.25, 0.3, 0.2}, {0.1, 0.1, 0.7, 0.1}, {0.4, 0.3, 0.2, 0.1}}, -3.0,
                    1);
}

TEST(MultipleChoice, SumsTheContinuationsLogProbabilities) {
  TableModel table = model();
  ChoiceItem item;
  item.context = {3, 0};
  item.choices = {{{1}, 0, 1, 1}, {{2, 2, 2}, 0, 5, 6}, {{1, 3}, 0, 2, 2}};
  item.answer = 1;
  item.line = 7;
  const auto results = measure_choices(table, std::vector<ChoiceItem>{item});
  ASSERT_EQ(results.size(), 1u);
  const ChoiceResult& result = results[0];
  EXPECT_NEAR(result.log_likelihoods[0], std::log(0.6), 1e-6);
  EXPECT_NEAR(result.log_likelihoods[1], std::log(0.2 * 0.7 * 0.7), 1e-6);
  EXPECT_NEAR(result.log_likelihoods[2], std::log(0.6 * 0.2), 1e-6);
  EXPECT_EQ(result.line, 7);
  // -0.511, -2.323, -2.120; per character -0.511, -0.465, -1.060; per byte -0.511, -0.387, -1.060.
  EXPECT_EQ(result.chosen, 0);
  EXPECT_EQ(result.chosen_by_characters, 1);
  EXPECT_EQ(result.chosen_by_bytes, 1);
  EXPECT_FALSE(result.correct);
  EXPECT_TRUE(result.correct_by_characters);
}

TEST(MultipleChoice, CharactersAndBytesAreDifferentLengths) {
  TableModel table = model();
  ChoiceItem item;
  item.context = {0};
  // log 0.6 = -0.511, log 0.2 = -1.609: per character -0.511, -0.536; per byte -0.511, -0.268.
  item.choices = {{{1}, 0, 1, 1}, {{2}, 0, 3, 6}};
  const auto results = measure_choices(table, std::vector<ChoiceItem>{item});
  EXPECT_EQ(results[0].chosen_by_characters, 0);
  EXPECT_EQ(results[0].chosen_by_bytes, 1);
}

TEST(MultipleChoice, TheFirstOfEqualChoicesWinsAndLettersShareOnePass) {
  TableModel table = model();
  ChoiceItem item;
  item.context = {1};
  item.choices = {{{3}, 0, 1, 1}, {{0}, 0, 1, 1}, {{1}, 0, 1, 1}};
  item.answer = 1;
  const auto results = measure_choices(table, std::vector<ChoiceItem>{item});
  EXPECT_EQ(results[0].chosen, 1);
  EXPECT_TRUE(results[0].correct);
  EXPECT_EQ(table.calls, 1);
  EXPECT_EQ(table.rows_computed, 1);
}

// A model whose every row depends on the whole sequence before it.
class Rolling : public TableModel {
 public:
  using TableModel::TableModel;
  std::vector<float> hidden_rows(std::span<const BatchSequence> batch) override {
    std::vector<float> rows;
    std::vector<std::vector<float>> states;
    for (const BatchSequence& sequence : batch) {
      tokens_read += static_cast<int64_t>(sequence.tokens.size());
      float state = sequence.continues ? states.at(*sequence.continues).back() : 0;
      auto& own = states.emplace_back();
      for (const int32_t token : sequence.tokens) {
        state = static_cast<float>((static_cast<int32_t>(state) * 3 + token + 1) % 4);
        own.push_back(state);
      }
      for (const int64_t position : sequence.wanted) rows.push_back(own.at(static_cast<size_t>(position)));
    }
    return rows;
  }
  int64_t tokens_read = 0;
};

// By the rule: the row after everything before a scored token.
double score_by_reading_all(Rolling& rolling, const ChoiceItem& item, const ChoiceContinuation& choice) {
  double score = 0;
  std::vector<int32_t> read = item.context;
  for (size_t i = 0; i < choice.tokens.size(); ++i) {
    if (static_cast<int64_t>(i) >= choice.given) {
      const std::vector<BatchSequence> alone{{read, {static_cast<int64_t>(read.size()) - 1}, std::nullopt}};
      score += static_cast<double>(rolling.logits(rolling.hidden_rows(alone))[static_cast<size_t>(choice.tokens[i])]);
    }
    read.push_back(choice.tokens[i]);
  }
  return score;
}

TEST(MultipleChoice, WhatChoicesShareIsReadOnceAndChangesNothing) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  SplitMix64 random(seed);
  const std::vector<std::vector<double>> table{
      {0.1, 0.6, 0.2, 0.1}, {0.25, 0.25, 0.3, 0.2}, {0.1, 0.1, 0.7, 0.1}, {0.4, 0.3, 0.2, 0.1}};
  const auto some_tokens = [&](uint64_t count) {
    std::vector<int32_t> tokens;
    for (uint64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(random.below(4)));
    return tokens;
  };
  std::vector<ChoiceItem> items;
  for (int i = 0; i < 300; ++i) {
    ChoiceItem item;
    item.context = some_tokens(1 + random.below(8));
    const std::vector<int32_t> begin = some_tokens(random.below(4));
    const bool are_read = random.below(2) == 0;  // as WinoGrande's: long beginnings, of which some is the same
    for (uint64_t choice = 0; choice < 2 + random.below(3); ++choice) {
      ChoiceContinuation continuation;
      if (are_read) {
        continuation.tokens = begin;
        const auto more = some_tokens(random.below(3));
        continuation.tokens.insert(continuation.tokens.end(), more.begin(), more.end());
        continuation.given = static_cast<int64_t>(continuation.tokens.size());
      }
      const auto scored = some_tokens(1 + random.below(3));
      continuation.tokens.insert(continuation.tokens.end(), scored.begin(), scored.end());
      item.choices.push_back(continuation);
    }
    items.push_back(item);
  }
  Rolling rolling(table);
  const auto results = measure_choices(rolling, items);
  Rolling oracle(table);
  for (size_t i = 0; i < items.size(); ++i) {
    for (size_t choice = 0; choice < items[i].choices.size(); ++choice) {
      EXPECT_NEAR(results[i].log_likelihoods[choice], score_by_reading_all(oracle, items[i], items[i].choices[choice]),
                  1e-6);
    }
  }
}

TEST(MultipleChoice, ReadsEachContextAndSharedBeginningOnce) {
  Rolling rolling({{0.1, 0.6, 0.2, 0.1}, {0.25, 0.25, 0.3, 0.2}, {0.1, 0.1, 0.7, 0.1}, {0.4, 0.3, 0.2, 0.1}});
  ChoiceItem item;
  item.context = {0, 1, 2};
  item.choices = {{{1, 2, 3}, 0, 1, 1}, {{2, 2}, 0, 1, 1}};
  ChoiceItem sentence;  // beginnings 3 1 and 3 2, then the scored 0 1
  sentence.context = {0};
  sentence.choices = {{{3, 1, 0, 1}, 2, 1, 1}, {{3, 2, 0, 1}, 2, 1, 1}};
  measure_choices(rolling, std::vector<ChoiceItem>{item, sentence});
  EXPECT_EQ(rolling.tokens_read, (3 + 2 + 1) + (2 + 2 + 2));
}

TEST(MultipleChoice, SummaryCountsEachRuleApart) {
  std::vector<ChoiceResult> results(10);
  for (size_t i = 0; i < 10; ++i) {
    results[i].correct = i < 5;
    results[i].correct_by_bytes = true;
  }
  const ChoiceSummary summary = summarize(results);
  EXPECT_EQ(summary.accuracy.correct, 5);
  EXPECT_DOUBLE_EQ(summary.accuracy.share, 0.5);
  EXPECT_NEAR(summary.accuracy.interval.low, 0.23659309051256405, 1e-12);
  EXPECT_EQ(summary.accuracy_by_characters.correct, 0);
  EXPECT_EQ(summary.accuracy_by_bytes.correct, 10);
  EXPECT_EQ(correct_items(results, &ChoiceResult::correct)[4], true);
  EXPECT_EQ(correct_items(results, &ChoiceResult::correct)[5], false);
}

TEST(MultipleChoice, RefusesTokensOutsideTheVocabulary) {
  TableModel table = model();
  ChoiceItem item;
  item.context = {0};
  item.choices = {{{4}, 0, 1, 1}};
  item.line = 12;
  expect_error([&] { measure_choices(table, std::vector<ChoiceItem>{item}); }, {"line 12", "token 4", "0 to 3"});
}

TEST(MultipleChoice, RefusesLogitsThatAreNotFinite) {
  TableModel broken({{0.5, std::nan("")}, {0.5, 0.5}});
  ChoiceItem item;
  item.context = {0};
  item.choices = {{{0}, 0, 1, 1}, {{1}, 0, 1, 1}};
  item.line = 12;
  expect_error([&] { measure_choices(broken, std::vector<ChoiceItem>{item}); }, {"line 12", "not finite"});
}

MultipleChoiceQuestion question(std::string text, std::vector<std::string> choices) {
  MultipleChoiceQuestion result;
  result.question = std::move(text);
  result.choices = std::move(choices);
  result.answer = 1;
  result.line = 3;
  return result;
}

TEST(ChoiceItem, ContextAndContinuationAreOneText) {
  const Tokenizer& tokenizer = small_tokenizer();
  const ChoiceItem item =
      make_choice_item(tokenizer, question("Where is it?\nAnswer:", {"the r\u00e9d box", "here"}), std::nullopt, {});
  EXPECT_EQ(item.context.front(), tokenizer.require_id("<bos>"));
  ASSERT_EQ(item.choices.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    std::vector<int32_t> all(item.context.begin() + 1, item.context.end());
    all.insert(all.end(), item.choices[i].tokens.begin(), item.choices[i].tokens.end());
    EXPECT_EQ(tokenizer.decode(all), std::string("Where is it?\nAnswer: ") + (i == 0 ? "the r\u00e9d box" : "here"));
    EXPECT_EQ(tokenizer.decode(item.choices[i].tokens)[0], ' ');
  }
  EXPECT_EQ(item.choices[0].characters, 11);
  EXPECT_EQ(item.choices[0].bytes, 12);
  EXPECT_EQ(item.answer, 1);
  EXPECT_EQ(item.line, 3);
}

TEST(ChoiceItem, TrailingSpacesOfTheQuestionMoveToTheChoice) {
  const Tokenizer& tokenizer = small_tokenizer();
  const ChoiceItem item = make_choice_item(tokenizer, question("Answer:  ", {"no", "yes"}), std::nullopt, {});
  const ChoiceItem plain = make_choice_item(tokenizer, question("Answer:", {"no", "yes"}), std::nullopt, {});
  EXPECT_EQ(item.context, plain.context);
  EXPECT_EQ(tokenizer.decode(item.choices[0].tokens), "   no");
  EXPECT_EQ(tokenizer.decode(plain.choices[0].tokens), " no");
}

TEST(ChoiceItem, AChatAsksInTheUsersTurnAndAnswersWithoutDelimiter) {
  const Tokenizer& tokenizer = small_tokenizer();
  const ChatTemplate chat_template = chat_template_by_name("gemma4");
  const ChoiceItem item = make_choice_item(tokenizer, question("Which?", {"no", "yes"}), chat_template, {});
  EXPECT_EQ(item.context, tokenize_prompt(tokenizer, "Which?", chat_template, {}));
  EXPECT_EQ(item.choices[1].tokens, tokenizer.encode("yes"));
}

// Of WinoGrande: the first four tokens of the second choice are read, and only its last two scored.
TEST(MultipleChoice, GivenTokensAreReadNotScored) {
  TableModel table = model();
  ChoiceItem item;
  item.context = {0};
  item.choices = {{{3, 1, 2}, 2, 1, 1}, {{3, 0, 1, 2, 2, 3}, 4, 1, 1}};
  const auto results = measure_choices(table, std::vector<ChoiceItem>{item});
  EXPECT_NEAR(results[0].log_likelihoods[0], std::log(0.3), 1e-6);
  EXPECT_NEAR(results[0].log_likelihoods[1], std::log(0.7 * 0.1), 1e-6);
  EXPECT_EQ(table.rows_computed, 3);  // no logits of what is only read
}

TEST(ChoiceItem, AnEndingIsScoredAfterEachChoice) {
  const Tokenizer& tokenizer = small_tokenizer();
  MultipleChoiceQuestion winogrande = question("", {"It was the cup", "It was the box"});
  winogrande.ending = "that broke.";
  const ChoiceItem item = make_choice_item(tokenizer, winogrande, std::nullopt, {});
  EXPECT_EQ(item.context, std::vector<int32_t>{tokenizer.require_id("<bos>")});
  EXPECT_EQ(tokenizer.decode(item.choices[1].tokens), "It was the box that broke.");
  const std::span<const int32_t> tokens(item.choices[1].tokens);
  EXPECT_EQ(tokenizer.decode(tokens.subspan(static_cast<size_t>(item.choices[1].given))), " that broke.");
  EXPECT_EQ(item.choices[1].characters, 14);

  const ChatTemplate chat_template = chat_template_by_name("gemma4");
  const ChoiceItem chat = make_choice_item(tokenizer, winogrande, chat_template, {});
  auto asked = tokenize_prompt(tokenizer, "It was the cup", chat_template, {});
  asked.erase(asked.begin());
  const auto given = static_cast<size_t>(chat.choices[0].given);
  EXPECT_EQ(std::vector<int32_t>(chat.choices[0].tokens.begin(),
                                 chat.choices[0].tokens.begin() + static_cast<std::ptrdiff_t>(given)),
            asked);
}

TEST(ChoiceItem, AnEmptyChoiceIsAnError) {
  expect_error(
      [] {
        make_choice_item(small_tokenizer(), question("Which?", {"no", ""}), std::nullopt, {});
      },
      {"line 3", "choice"});
}

}  // namespace
}  // namespace qat
