#include "eval/paired_difference.h"

#include <gtest/gtest.h>

#include "core/random.h"
#include "support/expect_error.h"

namespace qat {
namespace {

using testing::expect_error;

// So many items that only the first, only the second, and both answer correctly; the rest neither.
PairedDifference answers(int64_t only_first, int64_t only_second, int64_t both, int64_t items) {
  std::vector<bool> first;
  std::vector<bool> second;
  for (int64_t i = 0; i < items; ++i) {
    first.push_back(i < only_first || (i >= only_first + only_second && i < only_first + only_second + both));
    second.push_back(i >= only_first && i < only_first + only_second + both);
  }
  return answer_difference(first, second);
}

// Python, with b and c the items that only one answers: N = n + 2;
// (b - c) / N -+ 1.959963984540054 * math.sqrt(b + c + 1 - (b - c)**2 / N) / N.
TEST(AnswerDifference, EqualsPython) {
  const auto expect = [](const PairedDifference& found, double value, double low, double high) {
    EXPECT_NEAR(found.estimate.value, value, 1e-12);
    EXPECT_NEAR(found.estimate.interval.low, low, 1e-12);
    EXPECT_NEAR(found.estimate.interval.high, high, 1e-12);
  };
  expect(answers(12, 5, 40, 100), 0.07, -0.011801075037416384, 0.14905597699820072);
  expect(answers(0, 0, 5, 10), 0, -0.1633303320450045, 0.1633303320450045);
  expect(answers(210, 150, 1500, 3000), 0.02, 0.007602461062774207, 0.03237089003649295);
  expect(answers(0, 9, 291, 300), -0.03, -0.05004724232074609, -0.009555406685876424);
}

TEST(AnswerDifference, HasMcNemarsPValue) {
  EXPECT_NEAR(answers(3, 10, 20, 50).p_value, 0.09228515625, 1e-12);
  EXPECT_EQ(answers(3, 10, 20, 50).samples, 50);
  EXPECT_TRUE(answers(0, 1, 0, 2).judgeable);
}

TEST(AnswerDifference, StaysWithinWhatSharesCanDifferBy) {
  EXPECT_EQ(answers(4, 0, 0, 4).estimate.interval.high, 1);
  EXPECT_EQ(answers(0, 4, 0, 4).estimate.interval.low, -1);
  const PairedDifference none = answers(0, 0, 0, 0);
  EXPECT_EQ(none.estimate.interval.low, -1);
  EXPECT_EQ(none.estimate.interval.high, 1);
  EXPECT_EQ(none.p_value, 1);
}

TEST(DocumentDifference, IsTheBootstrapsWithAPValue) {
  SplitMix64 random(8);
  std::vector<double> first;
  std::vector<double> second;
  std::vector<double> tokens;
  for (int i = 0; i < 40; ++i) {
    tokens.push_back(static_cast<double>(10 + random.below(50)));
    second.push_back(tokens.back() * random.uniform());
    first.push_back(second.back() + tokens.back() * (random.uniform() - 0.3));
  }
  const PairedDifference found = document_difference(first, second, tokens, {.seed = 4});
  const Estimate wanted = bootstrap_difference(first, second, tokens, {.seed = 4});
  EXPECT_NEAR(found.estimate.value, wanted.value, 1e-12);
  EXPECT_EQ(found.estimate.interval.low, wanted.interval.low);
  EXPECT_EQ(found.estimate.interval.high, wanted.interval.high);
  // The p-value falls to 5 % where an end of the interval passes 0, but for a resample.
  EXPECT_EQ(found.p_value < 0.05, found.estimate.interval.excludes(0));
}

// Of n resamples, all on one side of 0: 2 / (n + 1). Of equal documents, none on one side alone: 1.
TEST(DocumentDifference, PValuesAtTheEnds) {
  const std::vector<double> zeros(30, 0.0);
  const std::vector<double> ones(30, 1.0);
  EXPECT_DOUBLE_EQ(document_difference(ones, zeros, ones, {.resamples = 999}).p_value, 0.002);
  EXPECT_DOUBLE_EQ(document_difference(zeros, ones, ones, {.resamples = 999}).p_value, 0.002);
  EXPECT_DOUBLE_EQ(document_difference(ones, ones, ones, {.resamples = 999}).p_value, 1);
}

TEST(DocumentDifference, ConcludesNothingFromFewDocuments) {
  const std::vector<double> zeros(40, 0.0);
  const std::vector<double> ones(40, 1.0);
  std::vector<double> tokens(40, 0.0);
  for (size_t i = 0; i < 29; ++i) tokens[i] = 1;  // documents without counted tokens are no evidence
  const PairedDifference few = document_difference(ones, zeros, tokens, {});
  EXPECT_EQ(few.samples, 29);
  EXPECT_FALSE(few.judgeable);
  EXPECT_EQ(few.p_value, 1);
  tokens[29] = 1;
  EXPECT_TRUE(document_difference(ones, zeros, tokens, {}).judgeable);
}

TEST(DocumentDifference, RefusesColumnsThatAreNotPaired) {
  const std::vector<double> two{1, 2};
  const std::vector<double> three{1, 2, 3};
  expect_error([&] { document_difference(two, three, three, {}); }, {"found 2 and 3"});
  expect_error([&] { document_difference({}, {}, {}, {}); }, {"no documents"});
}

}  // namespace
}  // namespace qat
