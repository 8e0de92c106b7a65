#include "eval/generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "eval/logits.h"
#include "eval/table_model.h"

namespace qat {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// 0 -> 1 -> 2 -> 3 -> 0 …
TableModel cycle() {
  return TableModel({{0.1, 0.7, 0.15, 0.05}, {0.1, 0.1, 0.6, 0.2}, {0.2, 0.1, 0.1, 0.6}, {0.5, 0.2, 0.2, 0.1}}, 11.0);
}

std::vector<int32_t> tokens_of(const std::vector<GeneratedStep>& steps) {
  std::vector<int32_t> tokens;
  for (const GeneratedStep& step : steps) tokens.push_back(step.token);
  return tokens;
}

TEST(Logits, LogSumExpOfKnownRows) {
  EXPECT_DOUBLE_EQ(log_sum_exp(std::vector<float>{0, 0, 0, 0}), std::log(4.0));
  EXPECT_DOUBLE_EQ(log_sum_exp(std::vector<float>{30000, 30000}), 30000 + std::log(2.0));
  EXPECT_FALSE(std::isfinite(log_sum_exp(std::vector<float>{1, std::numeric_limits<float>::infinity()})));
  EXPECT_FALSE(std::isfinite(log_sum_exp(std::vector<float>{1, std::numeric_limits<float>::quiet_NaN()})));
}

TEST(Logits, TiesGoToTheSmallestId) {
  const std::vector<float> logits{1, 3, 2, 3, 0};
  EXPECT_EQ(greedy_token(logits), 1);
  std::vector<int32_t> ids;
  for (const auto& [id, log_probability] : top_log_probabilities(logits, 3)) ids.push_back(id);
  EXPECT_THAT(ids, ElementsAre(1, 3, 2));
  EXPECT_EQ(top_log_probabilities(logits, 99).size(), 5u);
  EXPECT_TRUE(top_log_probabilities(logits, 0).empty());
}

TEST(Generate, FollowsTheMostLikelyTokensAndGivesTheirProbabilities) {
  TableModel model = cycle();
  GenerateOptions options;
  options.max_new = 5;
  options.top = 2;
  std::vector<int32_t> streamed;
  options.on_step = [&](const GeneratedStep& step) { streamed.push_back(step.token); };
  const auto steps = generate(model, std::vector<int32_t>{3, 0}, options);
  EXPECT_THAT(tokens_of(steps), ElementsAre(1, 2, 3, 0, 1));
  EXPECT_EQ(streamed, tokens_of(steps));
  ASSERT_EQ(steps[0].top.size(), 2u);
  EXPECT_EQ(steps[0].top[1].first, 2);
  EXPECT_NEAR(steps[0].top[0].second, std::log(0.7), 1e-6);
  EXPECT_NEAR(steps[0].top[1].second, std::log(0.15), 1e-6);
}

TEST(Generate, StopsAfterAStopToken) {
  TableModel model = cycle();
  GenerateOptions options;
  options.stop_tokens = {3, 99};
  EXPECT_THAT(tokens_of(generate(model, std::vector<int32_t>{0}, options)), ElementsAre(1, 2, 3));
}

TEST(Generate, ForcedTokensAreTakenAsTheyAre) {
  TableModel model = cycle();
  GenerateOptions options;
  options.max_new = 1;
  options.top = 1;
  options.stop_tokens = {3};
  options.forced = {3, 3, 2};
  const auto steps = generate(model, std::vector<int32_t>{0}, options);
  EXPECT_THAT(tokens_of(steps), ElementsAre(3, 3, 2));
  EXPECT_EQ(steps[0].top[0].first, 1);  // what the model would have chosen
  EXPECT_EQ(steps[1].top[0].first, 0);
}

TEST(Generate, RefusesWhatItCanNotRun) {
  TableModel model = cycle();
  EXPECT_THROW(generate(model, {}, {}), Error);
  try {
    generate(model, std::vector<int32_t>{0, 4}, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("token 2 of the prompt is 4"));
  }
  TableModel broken({{std::nan(""), 0.5}, {0.5, 0.5}});
  EXPECT_THROW(generate(broken, std::vector<int32_t>{0}, {}), Error);
}

TEST(GreedyAgreement, CountsUpToTheFirstDifference) {
  TableModel reference = cycle();
  // Differs after token 2: continues with 0 instead of 3.
  TableModel model({{0.1, 0.7, 0.15, 0.05}, {0.1, 0.1, 0.6, 0.2}, {0.6, 0.1, 0.1, 0.2}, {0.5, 0.2, 0.2, 0.1}});
  const std::vector<std::vector<int32_t>> prompts{{0}, {3}, {1, 2}};
  const auto said = greedy_continuations(reference, prompts, 6, std::vector<int32_t>{});
  EXPECT_THAT(said[0], ElementsAre(1, 2, 3, 0, 1, 2));
  const auto results = greedy_agreement(model, prompts, said);
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[0].agreeing, 2);
  EXPECT_EQ(results[1].agreeing, 3);
  EXPECT_EQ(results[2].agreeing, 0);
  EXPECT_EQ(results[2].tokens, 6);
  EXPECT_DOUBLE_EQ(agreement_share(results), 5.0 / 18.0);

  EXPECT_EQ(model.calls, 1);

  const auto stopped =
      greedy_agreement(model, prompts, greedy_continuations(reference, prompts, 6, std::vector<int32_t>{2}));
  EXPECT_EQ(stopped[0].tokens, 2);
  EXPECT_EQ(stopped[0].agreeing, 2);
  EXPECT_DOUBLE_EQ(agreement_share(greedy_agreement(reference, prompts, said)), 1.0);
  const std::vector<std::vector<int32_t>> nothing_said(3);
  EXPECT_EQ(greedy_agreement(model, prompts, nothing_said)[2].tokens, 0);
}

TEST(GreedyAgreement, RefusesLogitsThatAreNotFinite) {
  TableModel broken({{std::nan(""), 0.5}, {0.5, 0.5}});
  const std::vector<std::vector<int32_t>> prompts{{0}};
  const std::vector<std::vector<int32_t>> said{{1}};
  EXPECT_THROW(greedy_agreement(broken, prompts, said), Error);
}

}  // namespace
}  // namespace qat
