#include "eval/distribution.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "core/random.h"
#include "eval/statistics.h"

namespace qat {
namespace {

constexpr double kProbabilities[] = {0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1};

Distribution distribution_of(const std::vector<double>& values) {
  Distribution distribution;
  for (const double value : values) distribution.add(value);
  return distribution;
}

TEST(Distribution, FewValuesAreExact) {
  const Distribution distribution = distribution_of({4, 1, 32, 16, 2, 8});
  EXPECT_EQ(distribution.quantiles(std::vector<double>{0, 0.1, 0.5, 0.9, 1}), (std::vector<double>{1, 1.5, 6, 24, 32}));
  EXPECT_EQ(distribution.count(), 6);
  EXPECT_EQ(distribution.minimum(), 1);
  EXPECT_EQ(distribution.maximum(), 32);
}

TEST(Distribution, SummaryNamesThePercentiles) {
  std::vector<double> values;
  for (int i = 0; i <= 1000; ++i) values.push_back(i);
  const DistributionSummary summary = summarize(distribution_of(values), 500);
  EXPECT_EQ(summary.minimum, 0);
  EXPECT_DOUBLE_EQ(summary.percentile_0_1, 1);
  EXPECT_DOUBLE_EQ(summary.percentile_1, 10);
  EXPECT_DOUBLE_EQ(summary.percentile_10, 100);
  EXPECT_DOUBLE_EQ(summary.median, 500);
  EXPECT_DOUBLE_EQ(summary.percentile_90, 900);
  EXPECT_DOUBLE_EQ(summary.percentile_99, 990);
  EXPECT_DOUBLE_EQ(summary.percentile_99_9, 999);
  EXPECT_EQ(summary.maximum, 1000);
  EXPECT_EQ(summary.mean, 500);
  EXPECT_EQ(summarize(Distribution(), 0).maximum, 0);
}

// Sizes over twelve orders of magnitude and both signs, three times as many as are kept.
TEST(Distribution, ManyValuesAreWithinAThousandth) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  SplitMix64 random(seed);
  std::vector<double> values;
  for (int64_t i = 0; i < 3 * Distribution::kExactValues; ++i) {
    const double size = std::pow(10.0, 12 * random.uniform() - 9);
    values.push_back(random.below(3) == 0 ? -size : size);
  }
  const Distribution whole = distribution_of(values);
  Distribution joined = distribution_of({values.begin(), values.begin() + 700});
  joined.merge(distribution_of({values.begin() + 700, values.end() - 5}));
  joined.merge(Distribution());
  joined.merge(distribution_of({values.end() - 5, values.end()}));
  std::ranges::sort(values);
  const auto found = whole.quantiles(kProbabilities);
  for (size_t i = 0; i < found.size(); ++i) {
    const double wanted = sorted_quantile(values, kProbabilities[i]);
    EXPECT_NEAR(found[i], wanted, 1.05e-3 * std::fabs(wanted)) << kProbabilities[i];
  }
  EXPECT_EQ(found.front(), values.front());
  EXPECT_EQ(found.back(), values.back());
  EXPECT_EQ(joined.quantiles(kProbabilities), found);
  EXPECT_EQ(joined.count(), whole.count());
}

TEST(Distribution, MergingExactOnesStaysExact) {
  Distribution distribution = distribution_of({5, 1});
  distribution.merge(distribution_of({3}));
  EXPECT_EQ(distribution.quantiles(std::vector<double>{0, 0.5, 1}), (std::vector<double>{1, 3, 5}));
}

TEST(Distribution, HoldsZerosAndInfinities) {
  Distribution distribution;
  for (int64_t i = 0; i <= Distribution::kExactValues; ++i) distribution.add(i % 4 == 3 ? INFINITY : 0.0);
  EXPECT_EQ(distribution.quantiles(std::vector<double>{0.1, 0.7, 0.8, 1}),
            (std::vector<double>{0, 0, INFINITY, INFINITY}));
}

}  // namespace
}  // namespace qat
