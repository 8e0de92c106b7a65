// Against tests/golden/data/questions.json: what lm-evaluation-harness builds from the lines of benchmarks, and the
// numbers that it finds in generated texts (scripts/golden/make_question_goldens.py).
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/json.h"
#include "data/question.h"
#include "data/small_tokenizer.h"
#include "eval/exact_match.h"
#include "eval/multiple_choice.h"

namespace qat {
namespace {

using nlohmann::ordered_json;
using testing::golden_data;
using testing::small_tokenizer;

const ordered_json& goldens() {
  static const ordered_json kGoldens = load_json(golden_data("questions.json"));
  return kGoldens;
}

TEST(QuestionGolden, TextsAreTheHarness) {
  int compared = 0;
  for (const auto& shape : goldens()["shapes"]) {
    std::vector<MultipleChoiceQuestion> examples;
    for (const auto& line : shape["examples"]) examples.push_back(read_multiple_choice(line));
    for (const auto& golden : shape["questions"]) {
      SCOPED_TRACE(golden.dump());
      ASSERT_TRUE(is_multiple_choice_line(golden["line"]));
      std::vector<MultipleChoiceQuestion> questions{read_multiple_choice(golden["line"])};
      add_solved_examples(questions, examples, golden["few_shot"].get<int64_t>());
      const MultipleChoiceQuestion& question = questions[0];
      EXPECT_EQ(question.answer, golden["answer"].get<int64_t>());
      EXPECT_EQ(question.choices, golden["choices"].get<std::vector<std::string>>());
      for (size_t i = 0; i < question.choices.size(); ++i) {
        const bool has_ending = !question.ending.empty();
        const std::string& read = has_ending ? question.choices[i] : question.question;
        const std::string& scored = has_ending ? question.ending : question.choices[i];
        EXPECT_EQ(question.preface + read, golden["contexts"][i].get<std::string>());
        EXPECT_EQ(" " + scored, golden["continuations"][i].get<std::string>());
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 60);
}

// Read and scored tokens spell context and continuation; trailing spaces of the context move to the continuation.
TEST(QuestionGolden, TokensSpellTheTexts) {
  int compared = 0;
  for (const auto& shape : goldens()["shapes"]) {
    for (const auto& golden : shape["questions"]) {
      if (golden["few_shot"].get<int64_t>() > 0) continue;
      SCOPED_TRACE(golden.dump());
      const ChoiceItem item =
          make_choice_item(small_tokenizer(), read_multiple_choice(golden["line"]), std::nullopt, {});
      for (size_t i = 0; i < item.choices.size(); ++i) {
        const ChoiceContinuation& choice = item.choices[i];
        std::vector<int32_t> read(item.context.begin() + 1, item.context.end());
        read.insert(read.end(), choice.tokens.begin(), choice.tokens.begin() + choice.given);
        const std::vector<int32_t> scored(choice.tokens.begin() + choice.given, choice.tokens.end());
        auto context = golden["contexts"][i].get<std::string>();
        auto continuation = golden["continuations"][i].get<std::string>();
        for (; context.ends_with(' '); context.pop_back()) continuation.insert(0, 1, ' ');
        EXPECT_EQ(small_tokenizer().decode(read), context);
        EXPECT_EQ(small_tokenizer().decode(scored), continuation);
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 30);
}

TEST(QuestionGolden, NumbersAreTheHarness) {
  int correct = 0;
  for (const auto& golden : goldens()["numbers"]) {
    SCOPED_TRACE(golden.dump());
    const auto response = golden["response"].get<std::string>();
    const auto reference = golden["reference"].get<std::string>();
    EXPECT_EQ(strict_number(response), golden["strict"].get<std::string>());
    EXPECT_EQ(flexible_number(response), golden["flexible"].get<std::string>());
    EXPECT_EQ(matches_exactly(strict_number(response), reference), golden["strict_correct"].get<bool>());
    EXPECT_EQ(matches_exactly(flexible_number(response), reference), golden["flexible_correct"].get<bool>());
    correct += golden["flexible_correct"].get<bool>() ? 1 : 0;
  }
  EXPECT_GT(correct, 100);
}

}  // namespace
}  // namespace qat
