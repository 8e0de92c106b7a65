#include "eval/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "core/random.h"
#include "support/expect_error.h"

namespace qat {
namespace {

using testing::expect_error;

TEST(Quantile, EqualsNumpy) {
  const std::vector<double> values{1, 2, 4, 8, 16, 32};
  EXPECT_DOUBLE_EQ(sorted_quantile(values, 0), 1);
  EXPECT_DOUBLE_EQ(sorted_quantile(values, 0.1), 1.5);
  EXPECT_DOUBLE_EQ(sorted_quantile(values, 0.5), 6);
  EXPECT_DOUBLE_EQ(sorted_quantile(values, 0.9), 24);
  EXPECT_DOUBLE_EQ(sorted_quantile(values, 0.999), 31.92);
  EXPECT_DOUBLE_EQ(sorted_quantile(values, 1), 32);
  EXPECT_DOUBLE_EQ(sorted_quantile(std::vector<double>{7}, 0.3), 7);
}

// Python: z = statistics.NormalDist().inv_cdf(.975) in Wilson's formula.
TEST(Wilson, EqualsPython) {
  const auto expect = [](int64_t successes, int64_t trials, double low, double high) {
    const Interval interval = wilson_interval(successes, trials);
    EXPECT_NEAR(interval.low, low, 1e-12) << successes << " of " << trials;
    EXPECT_NEAR(interval.high, high, 1e-12) << successes << " of " << trials;
  };
  expect(0, 10, 0, 0.27753279986288915);
  expect(10, 10, 0.7224672001371109, 1);
  expect(5, 10, 0.23659309051256405, 0.763406909487436);
  expect(81, 263, 0.2552885198782743, 0.3662095769828001);
  expect(700, 1000, 0.6708761390827828, 0.7275931575229951);
  expect(1, 1, 0.20654931437723745, 1);
  expect(0, 0, 0, 1);
}

// Python: min(1, 2 * sum(math.comb(n, k) for k in range(min(b, c) + 1)) / 2**n).
TEST(McNemar, EqualsPython) {
  EXPECT_DOUBLE_EQ(mcnemar_p_value(0, 0), 1);
  EXPECT_DOUBLE_EQ(mcnemar_p_value(1, 0), 1);
  EXPECT_NEAR(mcnemar_p_value(0, 5), 0.0625, 1e-12);
  EXPECT_NEAR(mcnemar_p_value(3, 10), 0.09228515625, 1e-12);
  EXPECT_DOUBLE_EQ(mcnemar_p_value(10, 10), 1);
  EXPECT_NEAR(mcnemar_p_value(1, 9), 0.021484375, 1e-12);
  EXPECT_NEAR(mcnemar_p_value(40, 70), 0.005447429511444482, 1e-12);
  EXPECT_NEAR(mcnemar_p_value(500, 600), 0.0028195449914364275, 1e-11);
}

TEST(McNemar, CountsItemsThatFlip) {
  const std::vector<bool> first{true, true, false, false, true, false};
  const std::vector<bool> second{true, false, true, false, false, false};
  const McNemar result = exact_mcnemar(first, second);
  EXPECT_EQ(result.only_first, 2);
  EXPECT_EQ(result.only_second, 1);
  EXPECT_DOUBLE_EQ(result.flip_share(), 0.5);
  EXPECT_DOUBLE_EQ(result.p_value, 1);
  expect_error([&] { exact_mcnemar(first, {true}); }, {"found 6 and 1", "same file"});
}

double normal(SplitMix64& random) {
  return std::sqrt(-2 * std::log(1 - random.uniform())) * std::cos(2 * M_PI * random.uniform());
}

// For a mean of many documents the interval must be close to mean +- 1.96 s / sqrt(n).
TEST(Bootstrap, AgreesWithTheNormalIntervalOfAMean) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  SplitMix64 random(seed);
  constexpr size_t kDocuments = 400;
  std::vector<double> values;
  double sum = 0;
  double squares = 0;
  for (size_t i = 0; i < kDocuments; ++i) {
    values.push_back(3 + 2 * normal(random));
    sum += values.back();
    squares += values.back() * values.back();
  }
  const double mean = sum / kDocuments;
  const double half = 1.96 * std::sqrt((squares / kDocuments - mean * mean) / kDocuments);
  const std::vector<double> ones(kDocuments, 1.0);
  const Estimate estimate = bootstrap_ratio(values, ones, {.seed = seed});
  EXPECT_NEAR(estimate.value, mean, 1e-12);
  EXPECT_NEAR(estimate.interval.low, mean - half, 0.1 * half);
  EXPECT_NEAR(estimate.interval.high, mean + half, 0.1 * half);
  const Estimate narrow = bootstrap_ratio(values, ones, {.seed = seed, .confidence = 0.5});
  EXPECT_NEAR(narrow.interval.high - narrow.interval.low, 2 * half * 0.6745 / 1.96, 0.1 * half);
}

// Two documents with 0 and 1: a resampled mean is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4.
TEST(Bootstrap, DrawsDocumentsUniformly) {
  const std::vector<double> values{0, 1};
  const std::vector<double> ones{1, 1};
  const Estimate wide = bootstrap_ratio(values, ones, {.seed = 3, .confidence = 0.6});  // 20 % and 80 %
  EXPECT_EQ(wide.interval.low, 0);
  EXPECT_EQ(wide.interval.high, 1);
  const Estimate narrow = bootstrap_ratio(values, ones, {.seed = 3, .confidence = 0.4});  // 30 % and 70 %
  EXPECT_EQ(narrow.interval.low, 0.5);
  EXPECT_EQ(narrow.interval.high, 0.5);
}

TEST(Bootstrap, PairingRemovesWhatBothModelsShare) {
  SplitMix64 random(5);
  std::vector<double> first;
  std::vector<double> second;
  for (int i = 0; i < 60; ++i) {
    const double difficulty = 100 * random.uniform();
    first.push_back(difficulty + 1 + 0.1 * random.uniform());
    second.push_back(difficulty);
  }
  const std::vector<double> ones(first.size(), 1.0);
  const Estimate estimate = bootstrap_difference(first, second, ones, {});
  EXPECT_GT(estimate.interval.low, 1.0);
  EXPECT_LT(estimate.interval.high, 1.1);
  EXPECT_TRUE(estimate.interval.excludes(0));
}

TEST(Bootstrap, WeighsDocumentsByTheirTokens) {
  const std::vector<double> sums{10, 1};
  const std::vector<double> tokens{100, 1};
  EXPECT_DOUBLE_EQ(bootstrap_ratio(sums, tokens, {}).value, 11.0 / 101);
}

TEST(Bootstrap, TheSeedDecidesTheInterval) {
  SplitMix64 random(2);
  std::vector<double> values;
  for (int i = 0; i < 30; ++i) values.push_back(random.uniform());
  const std::vector<double> ones(values.size(), 1.0);
  const Estimate first = bootstrap_ratio(values, ones, {.seed = 9});
  const Estimate again = bootstrap_ratio(values, ones, {.seed = 9});
  const Estimate other = bootstrap_ratio(values, ones, {.seed = 10});
  EXPECT_EQ(first.interval.low, again.interval.low);
  EXPECT_EQ(first.interval.high, again.interval.high);
  EXPECT_NE(first.interval.low, other.interval.low);
}

TEST(Bootstrap, RefusesColumnsThatAreNotPaired) {
  const std::vector<double> two{1, 2};
  const std::vector<double> three{1, 2, 3};
  expect_error([&] { bootstrap_ratio(two, three, {}); }, {"found 2 and 3"});
  expect_error([&] { bootstrap_ratio({}, {}, {}); }, {"no documents"});
}

TEST(Recovery, IsTheRepairedShareOfTheDamage) {
  SplitMix64 random(1);
  std::vector<double> baseline;
  std::vector<double> ptq;
  std::vector<double> qat;
  for (int i = 0; i < 50; ++i) {
    baseline.push_back(10 * random.uniform());
    const double damage = 1 + random.uniform();
    ptq.push_back(baseline.back() + damage);
    qat.push_back(baseline.back() + 0.25 * damage);
  }
  const std::vector<double> tokens(50, 4.0);
  const Recovery recovery = recovery_fraction(ptq, qat, baseline, tokens, {});
  ASSERT_TRUE(recovery.fraction);
  EXPECT_NEAR(recovery.fraction->value, 0.75, 1e-12);
  EXPECT_NEAR(recovery.fraction->interval.low, 0.75, 1e-12);
  EXPECT_NEAR(recovery.fraction->interval.high, 0.75, 1e-12);
  EXPECT_GT(recovery.gap.interval.low, 0.25);
  EXPECT_LT(recovery.gap.interval.high, 0.5);
}

TEST(Recovery, IsNotGivenForFewDocumentsOrWhereNothingWasLost) {
  const std::vector<double> less(40, 1.0);
  const std::vector<double> more(40, 2.0);
  std::vector<double> tokens(40, 1.0);
  EXPECT_TRUE(recovery_fraction(more, less, less, tokens, {}).fraction);
  EXPECT_FALSE(recovery_fraction(less, less, more, tokens, {}).fraction);  // quantization improved the model
  for (size_t i = 29; i < 40; ++i) tokens[i] = 0;
  EXPECT_FALSE(recovery_fraction(more, less, less, tokens, {}).fraction);
}

TEST(Recovery, IsNotGivenForAGapThatMayBeZero) {
  const std::vector<double> baseline{1, 2, 3, 4};
  const std::vector<double> ptq{2, 1, 4, 3};
  const std::vector<double> tokens(4, 1.0);
  const Recovery recovery = recovery_fraction(ptq, baseline, baseline, tokens, {});
  EXPECT_FALSE(recovery.fraction);
  EXPECT_FALSE(recovery.gap.interval.excludes(0));
}

}  // namespace
}  // namespace qat
