#include "eval/exact_match.h"

#include <gtest/gtest.h>

#include "data/small_tokenizer.h"
#include "support/expect_error.h"

namespace qat {
namespace {

using testing::expect_error;
using testing::small_tokenizer;

TEST(ExactMatch, FindsNumbers) {
  EXPECT_EQ(strict_number("6 * 7 = 42\n#### 42 and #### 7"), "42");
  EXPECT_EQ(strict_number("#### x #### -1,200.5."), "-1,200.5.");
  EXPECT_EQ(strict_number("####42"), "[invalid]");
  EXPECT_EQ(flexible_number("6 * 7 = 42."), "42.");
  EXPECT_EQ(flexible_number("it costs $18 in all"), "$18");
  EXPECT_EQ(flexible_number("at -7, or"), "-7,");
  EXPECT_EQ(flexible_number("a - b $ . ,"), "[invalid]");
  EXPECT_EQ(flexible_number(""), "[invalid]");
}

TEST(ExactMatch, IgnoresWhatTheHarnessIgnores) {
  EXPECT_TRUE(matches_exactly("$1,200.", "He has 2.\n#### 1200"));
  EXPECT_TRUE(matches_exactly("ABC", "abc"));
  EXPECT_FALSE(matches_exactly("12.0", "#### 12"));
  EXPECT_FALSE(matches_exactly("[invalid]", "#### 12"));
}

TEST(ExactMatch, PromptsHaveTheirExamplesInFront) {
  const WorkedProblem example{"1 + 1?", "Two.\n#### 2", 1};
  const WorkedProblem problem{"2 + 2?", "#### 4", 2};
  EXPECT_EQ(problem_prompt(problem, std::vector<WorkedProblem>{example}),
            "Question: 1 + 1?\nAnswer: Two.\n#### 2\n\nQuestion: 2 + 2?\nAnswer:");
  EXPECT_EQ(problem_prompt(problem, {}), "Question: 2 + 2?\nAnswer:");
}

// Says the same whatever it is asked.
class Speaker : public LanguageModel {
 public:
  explicit Speaker(const std::string& text) : tokens_(small_tokenizer().encode(text)) {}
  int64_t vocabulary_size() const override { return small_tokenizer().vocabulary_size(); }
  void evaluate(std::span<const int32_t>, int64_t, const LogitsSink&) override {}
  int64_t hidden_size() const override { return 1; }
  std::vector<float> hidden_rows(std::span<const BatchSequence>) override { return {}; }
  std::span<const float> logits(std::span<const float>) override { return {}; }
  std::unique_ptr<DecodingSession> start() override { return std::make_unique<Session>(*this); }

  size_t steps = 0;

 private:
  class Session : public DecodingSession {
   public:
    explicit Session(Speaker& speaker) : speaker_(speaker) {}
    std::span<const float> append(std::span<const int32_t>) override {
      logits_.assign(static_cast<size_t>(speaker_.vocabulary_size()), 0.0f);
      logits_[static_cast<size_t>(speaker_.tokens_[next_++ % speaker_.tokens_.size()])] = 1.0f;
      ++speaker_.steps;
      return logits_;
    }

   private:
    Speaker& speaker_;
    size_t next_ = 0;
    std::vector<float> logits_;
  };

  std::vector<int32_t> tokens_;
};

TEST(ExactMatch, GenerationEndsAtAStopText) {
  Speaker speaker(" The answer is 4 of 5.\n#### 4\n\nQuestion: What else is there to ask?");
  const std::vector<WorkedProblem> problems{{"2 + 2?", "#### 4", 7}, {"2 + 3?", "#### 5", 8}};
  const std::vector<std::vector<int32_t>> prompts(2, {small_tokenizer().require_id("<bos>")});
  const auto results = measure_problems(speaker, small_tokenizer(), problems, prompts, {.max_new = 200});
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[0].text, " The answer is 4 of 5.\n#### 4\n\n");
  EXPECT_EQ(results[0].line, 7);
  EXPECT_TRUE(results[0].correct_strict);
  EXPECT_TRUE(results[0].correct_flexible);
  EXPECT_FALSE(results[1].correct_strict);
  EXPECT_LT(speaker.steps, 100u);

  Speaker endless("4 ");
  const auto cut = measure_problems(endless, small_tokenizer(), std::span(problems).first(1),
                                    std::span(prompts).first(1), {.max_new = 6});
  EXPECT_EQ(cut[0].strict, "[invalid]");
  EXPECT_EQ(cut[0].flexible, "4");
  EXPECT_TRUE(cut[0].correct_flexible);
  EXPECT_EQ(endless.steps, 6u);
}

TEST(ExactMatch, AnEmptyPromptIsAnError) {
  Speaker speaker("4");
  const std::vector<WorkedProblem> problems{{"2 + 2?", "#### 4", 7}};
  const std::vector<std::vector<int32_t>> prompts(1);
  expect_error([&] { measure_problems(speaker, small_tokenizer(), problems, prompts, {}); }, {"prompt has no tokens"});
}

}  // namespace
}  // namespace qat
