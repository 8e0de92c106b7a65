#include "eval/comparison.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "eval/measured_models.h"

namespace qat {
namespace {

using ::testing::HasSubstr;
using testing::measured_model;

std::vector<MeasuredModel> three_models() {
  return {measured_model("BF16", 1.8, 0, 40, 400, 0), measured_model("RTN", 2.0, 0.1, 40, 400, 40),
          measured_model("QAT", 1.85, 0.02, 40, 400, 40)};
}

TEST(Comparison, JudgesEveryMeasureOfThePair) {
  const auto judgements = judge_models(three_models());
  ASSERT_EQ(judgements.size(), 3u);
  EXPECT_EQ(judgements[0].measure, "KL");
  EXPECT_EQ(judgements[0].candidate, "QAT");
  EXPECT_EQ(judgements[0].baseline, "RTN");
  EXPECT_EQ(judgements[0].verdict.finding, Finding::Better);
  EXPECT_EQ(judgements[1].measure, "loss");
  EXPECT_EQ(judgements[1].verdict.finding, Finding::Better);
  EXPECT_EQ(judgements[1].verdict.text, "better by 0.15 (0.15 – 0.15)");
  EXPECT_EQ(judgements[2].measure, "accuracy");
  EXPECT_EQ(judgements[2].verdict.text, "no difference shown");
}

TEST(Comparison, OfTwoModelsTheSecondIsJudgedAgainstTheFirst) {
  const std::vector<MeasuredModel> models{measured_model("BF16", 1.8, 0, 40, 400, 0),
                                          measured_model("RTN", 2.0, 0.1, 40, 400, 40)};
  const auto judgements = judge_models(models);
  ASSERT_EQ(judgements.size(), 2u);
  EXPECT_EQ(judgements[0].measure, "loss");
  EXPECT_EQ(judgements[0].verdict.finding, Finding::Worse);
  // The first 40 questions hold 30 that the first model answers: 7.5 points. The interval: paired_difference_test.cpp.
  EXPECT_EQ(judgements[1].verdict.finding, Finding::Worse);
  EXPECT_THAT(judgements[1].verdict.text, HasSubstr("worse by 7.5 points (4.8 points – "));
  EXPECT_TRUE(recovered_gaps(models).empty());
  EXPECT_TRUE(judge_models(std::span(models).first(1)).empty());
}

TEST(Comparison, SaysHowMuchIsRegained) {
  const auto models = three_models();
  const auto gaps = recovered_gaps(models);
  ASSERT_EQ(gaps.size(), 3u);
  EXPECT_EQ(gaps[0].measure, "KL");
  ASSERT_TRUE(gaps[0].recovery.fraction);
  EXPECT_NEAR(gaps[0].recovery.fraction->value, 0.8, 1e-9);
  ASSERT_TRUE(gaps[1].recovery.fraction);
  EXPECT_NEAR(gaps[1].recovery.fraction->value, 0.75, 1e-9);
  ASSERT_TRUE(gaps[2].recovery.fraction);  // of the answers nothing is
  EXPECT_NEAR(gaps[2].recovery.fraction->value, 0, 1e-12);
  EXPECT_EQ(recovery_table(gaps, models).rows[1][4], "75.0 %");
}

TEST(Comparison, SaysNoShareOfWhatIsLostOnTop) {
  auto models = three_models();
  std::swap(models[1], models[2]);
  const Table table = recovery_table(recovered_gaps(models), models);
  EXPECT_EQ(table.rows[0][4], "nothing: it lost more");
  EXPECT_EQ(table.rows[0][5], "");
}

TEST(Comparison, MakesNoClaimAboutModelsThatStandAside) {
  auto models = three_models();
  models.push_back(models[2]);
  models.back().name = "BASE";
  models.back().is_judged = false;
  const auto judgements = judge_models(models);
  const auto of_three = judge_models(std::span(models).first(3));
  ASSERT_EQ(judgements.size(), of_three.size());
  for (size_t i = 0; i < judgements.size(); ++i) {
    EXPECT_EQ(judgements[i].verdict.adjusted_p_value, of_three[i].verdict.adjusted_p_value);
  }
  EXPECT_EQ(recovered_gaps(models).size(), recovered_gaps(std::span(models).first(3)).size());
}

TEST(Comparison, SaysWhyNothingIsRegained) {
  const std::vector<MeasuredModel> equal{measured_model("BF16", 1.8, 0), measured_model("RTN", 1.8, 0.1),
                                         measured_model("QAT", 1.8, 0.1)};
  EXPECT_EQ(recovery_table(recovered_gaps(equal), equal).rows[1][4], "not given: no loss is shown");
  const std::vector<MeasuredModel> few{measured_model("BF16", 1.8, 0, 5), measured_model("RTN", 2, 0.1, 5),
                                       measured_model("QAT", 1.9, 0.1, 5)};
  EXPECT_EQ(recovery_table(recovered_gaps(few), few).rows[0][4], "not given: too few documents");
  EXPECT_EQ(judge_models(few)[0].verdict.finding, Finding::NotJudged);
}

TEST(Comparison, TablesHaveARowPerModel) {
  const auto models = three_models();
  const Table results = results_table(models);
  ASSERT_EQ(results.rows.size(), 3u);
  EXPECT_EQ(results.header[4], "KL to BF16");
  EXPECT_EQ(results.rows[1][0], "RTN");
  EXPECT_EQ(results.rows[1][7], "67.5 %");
  EXPECT_EQ(results.rows[0].size(), results.header.size());
  const Table tails = tails_table(models);
  ASSERT_EQ(tails.rows.size(), 3u);
  EXPECT_EQ(tails.rows[1].size(), tails.header.size());
  EXPECT_EQ(tails.rows[1][7], "-1.00 %");
  const Table pairs = pairs_table(models);
  ASSERT_EQ(pairs.rows.size(), 1u);
  EXPECT_EQ(pairs.rows[0][0], "QAT − RTN");
  EXPECT_EQ(pairs.rows[0][3], "0.200");
  EXPECT_EQ(pairs.rows[0].size(), pairs.header.size());
  EXPECT_EQ(verdicts_table(judge_models(models)).rows.size(), 3u);
  for (const Table& table : {results, tails, pairs}) EXPECT_FALSE(format_table(table).empty());
}

TEST(Comparison, FlipsAreToldByDirection) {
  auto models = three_models();
  models[2].choices[0].correct = true;    // RTN is wrong there
  models[2].choices[50].correct = false;  // RTN is right in both
  models[2].choices[52].correct = false;
  const auto row = pairs_table(models).rows[0];
  EXPECT_EQ(row[4], "0.8 %");
  EXPECT_EQ(row[5], "2");
  EXPECT_EQ(row[6], "1");
  EXPECT_EQ(row[7], "1");
}

// KL of distributions over other tokens has no meaning; answers can be compared.
TEST(Comparison, AModelWithItsOwnTokenizerIsComparedByItsAnswers) {
  auto models = three_models();
  models[2].own_tokenizer = true;
  models[2].text.divergences = {};
  models[0].greedy_agreement = models[1].greedy_agreement = 1;
  const auto judgements = judge_models(models);
  ASSERT_EQ(judgements.size(), 1u);
  EXPECT_EQ(judgements[0].measure, "accuracy");
  EXPECT_EQ(results_table(models).rows[2][4], "n/a");
  EXPECT_EQ(results_table(models).rows[2][9], "n/a");
  EXPECT_EQ(tails_table(models).rows[2][1], "n/a");
  EXPECT_NE(tails_table(models).rows[2].back(), "n/a");
  EXPECT_EQ(pairs_table(models).rows[0][1], "n/a");
  ASSERT_EQ(recovered_gaps(models).size(), 1u);
  EXPECT_EQ(recovered_gaps(models)[0].measure, "accuracy");
  EXPECT_FALSE(comparison_json(models)["models"][2].contains("greedy_agreement"));
}

TEST(Comparison, GreedyAgreementIsAColumnOnlyIfItWasMeasured) {
  auto models = three_models();
  EXPECT_NE(results_table(models).header.back(), "greedy agreement");
  models[1].greedy_agreement = 0.25;
  const Table table = results_table(models);
  EXPECT_EQ(table.header.back(), "greedy agreement");
  EXPECT_EQ(table.rows[1].back(), "25.0 %");
  EXPECT_EQ(table.rows[2].back(), "n/a");
}

TEST(Comparison, JsonHoldsFiguresAndVerdicts) {
  const auto json = comparison_json(three_models());
  EXPECT_EQ(json["models"].size(), 3u);
  EXPECT_EQ(json["models"][1]["questions"]["accuracy"]["correct"], 270);
  EXPECT_EQ(json["verdicts"][0]["finding"], "better");
  EXPECT_EQ(json["verdicts"][2]["finding"], "no difference shown");
  EXPECT_NEAR(json["recovered"][1]["fraction"].get<double>(), 0.75, 1e-9);
  EXPECT_EQ(comparison_json(three_models()).dump(), json.dump());
}

}  // namespace
}  // namespace qat
