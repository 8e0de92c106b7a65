// Error bars of comparisons over the same items: resampling over documents, exact tests, intervals (qat_methods 6.3:
// paired always, over documents and not tokens).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace qat {

struct Interval {
  double low = 0;
  double high = 0;
  bool excludes(double value) const { return value < low || value > high; }
};

struct Estimate {
  double value = 0;
  Interval interval;
};

// Quantile of ascending values by linear interpolation between the neighbours of (n - 1) * probability (numpy's
// default). `sorted` must not be empty.
double sorted_quantile(std::span<const double> sorted, double probability);

struct BootstrapOptions {
  int64_t resamples = 10'000;
  uint64_t seed = 0;         // of SplitMix64: the same seed draws the same documents for every statistic
  double confidence = 0.95;  // two-sided percentile interval
};

// A statistic of the sums of columns over documents, in the order of the columns.
using StatisticOfSums = std::function<double(std::span<const double> sums)>;

// Draws documents with replacement, sums every column over the drawn documents, and takes the percentiles of the
// statistic. Columns are paired: row i of each is document i. Resamples whose statistic is NaN (0 / 0) are left out.
// Throws Error for columns of different or zero length.
Estimate bootstrap(std::span<const std::span<const double>> columns, const StatisticOfSums& statistic,
                   const BootstrapOptions& options);

// What bootstrap() is made of: the statistic of every resample, ascending, and the two-sided interval between its
// percentiles.
std::vector<double> bootstrap_replicates(std::span<const std::span<const double>> columns,
                                         const StatisticOfSums& statistic, const BootstrapOptions& options);
Interval percentile_interval(std::span<const double> replicates, double confidence);

// With fewer documents a percentile interval of 95 % covers less than 93 %, so nothing is concluded from it: it lacks
// the factor n / (n - 1) and Student's wider tails.
constexpr int64_t kFewestDocuments = 30;

// sum(numerators) / sum(denominators): with token counts as denominators, a mean per token.
Estimate bootstrap_ratio(std::span<const double> numerators, std::span<const double> denominators,
                         const BootstrapOptions& options);

// sum(first) / sum(weights) - sum(second) / sum(weights).
Estimate bootstrap_difference(std::span<const double> first, std::span<const double> second,
                              std::span<const double> weights, const BootstrapOptions& options);

// How much of the damage of post-training quantization a better method repairs, for a measure that is smaller the
// better, per document: sum(ptq - qat) / sum(ptq - baseline).
struct Recovery {
  Estimate gap;  // sum(ptq - baseline) / sum(weights)
  // Nothing unless the gap is shown to be above 0 (its interval is) on kFewestDocuments or more: the ratio would be
  // noise.
  std::optional<Estimate> fraction;
};
Recovery recovery_fraction(std::span<const double> ptq, std::span<const double> qat, std::span<const double> baseline,
                           std::span<const double> weights, const BootstrapOptions& options);

// Of 0.975: half the width of a 95 % interval in standard deviations.
constexpr double kNormalQuantile = 1.959963984540054;

// 95 % score interval of a share (Wilson 1927). [0, 1] for no trials.
Interval wilson_interval(int64_t successes, int64_t trials);

// Of two models' answers to the same items.
struct McNemar {
  int64_t only_first = 0;  // items that only the first answers correctly
  int64_t only_second = 0;
  int64_t items = 0;
  double p_value = 1;  // two-sided exact binomial test on the items where they differ
  // Items whose correctness changes in either direction, over all items: equal accuracies can hide many.
  double flip_share() const {
    return items > 0 ? static_cast<double>(only_first + only_second) / static_cast<double>(items) : 0.0;
  }
};
// Throws Error if the lists differ in length.
McNemar exact_mcnemar(const std::vector<bool>& first_correct, const std::vector<bool>& second_correct);
double mcnemar_p_value(int64_t only_first, int64_t only_second);

}  // namespace qat
