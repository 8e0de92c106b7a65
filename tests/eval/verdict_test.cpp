#include "eval/verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "eval/table.h"

namespace qat {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;

// By hand: sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04, and the last may not be smaller
// than the one before it.
TEST(Holm, ByHand) {
  EXPECT_THAT(
      holm_adjusted(std::vector<double>{0.01, 0.04, 0.03, 0.005}),
      ElementsAre(DoubleNear(0.03, 1e-15), DoubleNear(0.06, 1e-15), DoubleNear(0.06, 1e-15), DoubleNear(0.02, 1e-15)));
  EXPECT_THAT(holm_adjusted(std::vector<double>{0.7, 0.6}), ElementsAre(1, 1));
  EXPECT_THAT(holm_adjusted(std::vector<double>{0.2}), ElementsAre(0.2));
  EXPECT_TRUE(holm_adjusted({}).empty());
}

Comparison comparison(double value, double low, double high, double p_value, bool smaller_is_better = true) {
  Comparison result;
  result.difference.estimate = {value, {low, high}};
  result.difference.p_value = p_value;
  result.difference.samples = 100;
  result.smaller_is_better = smaller_is_better;
  result.format = [](double size) { return format_fixed(size, 2); };
  return result;
}

TEST(Verdict, SaysTheDirectionAndTheSize) {
  const std::vector<Comparison> family{comparison(-0.5, -0.75, -0.25, 0.001), comparison(0.5, 0.25, 0.75, 0.001),
                                       comparison(0.5, 0.25, 0.75, 0.001, false),
                                       comparison(-0.5, -0.75, -0.25, 0.001, false)};
  const auto verdicts = judge(family);
  EXPECT_EQ(verdicts[0].finding, Finding::Better);
  EXPECT_EQ(verdicts[0].text, "better by 0.50 (0.25 – 0.75)");
  EXPECT_EQ(verdicts[1].finding, Finding::Worse);
  EXPECT_EQ(verdicts[1].text, "worse by 0.50 (0.25 – 0.75)");
  EXPECT_EQ(verdicts[2].finding, Finding::Better);
  EXPECT_EQ(verdicts[3].finding, Finding::Worse);
  EXPECT_DOUBLE_EQ(verdicts[0].adjusted_p_value, 0.004);
}

TEST(Verdict, ADifferenceAmongManyMustBeClearer) {
  const std::vector<Comparison> alone{comparison(-0.5, -0.9, -0.1, 0.03)};
  EXPECT_EQ(judge(alone)[0].finding, Finding::Better);
  const std::vector<Comparison> family{alone[0], comparison(-0.1, -0.4, 0.2, 0.4)};
  const auto verdicts = judge(family);
  EXPECT_EQ(verdicts[0].finding, Finding::NoDifferenceShown);
  EXPECT_EQ(verdicts[0].text, "no difference shown (p 0.03 alone, but not among 2 comparisons)");
  EXPECT_EQ(verdicts[1].text, "no difference shown");
  EXPECT_EQ(judge(family, 0.1)[0].finding, Finding::Better);
}

TEST(Verdict, FewDocumentsAreNotJudged) {
  std::vector<Comparison> family{comparison(-0.5, -0.6, -0.4, 1)};
  family[0].difference.samples = 4;
  family[0].difference.judgeable = false;
  const auto verdicts = judge(family);
  EXPECT_EQ(verdicts[0].finding, Finding::NotJudged);
  EXPECT_EQ(verdicts[0].text, "not judged: 4 documents, 30 are needed");
}

}  // namespace
}  // namespace qat
