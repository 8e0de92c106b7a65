#include "eval/statistics.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/random.h"

namespace qat {
namespace {

void check_columns(std::span<const std::span<const double>> columns) {
  QAT_CHECK(!columns.empty());
  for (const auto& values : columns) {
    if (values.size() != columns.front().size()) {
      fail("a paired comparison needs the same documents on both sides, but found ", columns.front().size(), " and ",
           values.size(), ": evaluate both models on the same file");
    }
  }
  if (columns.front().empty()) fail("no documents to compare: the evaluation file gave none");
}

double log_binomial(double n, double k) { return std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1); }

}  // namespace

double sorted_quantile(std::span<const double> sorted, double probability) {
  QAT_CHECK(!sorted.empty());
  const double position = std::clamp(probability, 0.0, 1.0) * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double fraction = position - static_cast<double>(below);
  // Without the early return an infinite neighbour would turn 0 * infinity or infinity - infinity into NaN.
  if (fraction == 0 || sorted[below] == sorted[above]) return sorted[below];
  return sorted[below] + fraction * (sorted[above] - sorted[below]);
}

std::vector<double> bootstrap_replicates(std::span<const std::span<const double>> columns,
                                         const StatisticOfSums& statistic, const BootstrapOptions& options) {
  check_columns(columns);
  const size_t documents = columns.front().size();
  std::vector<double> sums(columns.size(), 0.0);
  SplitMix64 random(options.seed);
  std::vector<double> replicates;
  replicates.reserve(static_cast<size_t>(options.resamples));
  for (int64_t resample = 0; resample < options.resamples; ++resample) {
    std::ranges::fill(sums, 0.0);
    for (size_t draw = 0; draw < documents; ++draw) {
      const auto document = static_cast<size_t>(random.below(documents));
      for (size_t c = 0; c < columns.size(); ++c) sums[c] += columns[c][document];
    }
    const double value = statistic(sums);
    if (!std::isnan(value)) replicates.push_back(value);
  }
  std::ranges::sort(replicates);
  return replicates;
}

Interval percentile_interval(std::span<const double> replicates, double confidence) {
  const double tail = (1 - confidence) / 2;
  return {sorted_quantile(replicates, tail), sorted_quantile(replicates, 1 - tail)};
}

Estimate bootstrap(std::span<const std::span<const double>> columns, const StatisticOfSums& statistic,
                   const BootstrapOptions& options) {
  const std::vector<double> replicates = bootstrap_replicates(columns, statistic, options);
  std::vector<double> sums(columns.size(), 0.0);
  for (size_t c = 0; c < columns.size(); ++c) {
    for (const double value : columns[c]) sums[c] += value;
  }
  Estimate estimate;
  estimate.value = statistic(sums);
  estimate.interval = replicates.empty() ? Interval{estimate.value, estimate.value}
                                         : percentile_interval(replicates, options.confidence);
  return estimate;
}

Estimate bootstrap_ratio(std::span<const double> numerators, std::span<const double> denominators,
                         const BootstrapOptions& options) {
  const std::span<const double> columns[] = {numerators, denominators};
  return bootstrap(
      columns, [](std::span<const double> sums) { return sums[0] / sums[1]; }, options);
}

Estimate bootstrap_difference(std::span<const double> first, std::span<const double> second,
                              std::span<const double> weights, const BootstrapOptions& options) {
  const std::span<const double> columns[] = {first, second, weights};
  return bootstrap(
      columns, [](std::span<const double> sums) { return (sums[0] - sums[1]) / sums[2]; }, options);
}

Recovery recovery_fraction(std::span<const double> ptq, std::span<const double> qat, std::span<const double> baseline,
                           std::span<const double> weights, const BootstrapOptions& options) {
  Recovery recovery;
  recovery.gap = bootstrap_difference(ptq, baseline, weights, options);
  const auto measured = std::ranges::count_if(weights, [](double weight) { return weight > 0; });
  if (recovery.gap.interval.low <= 0 || measured < kFewestDocuments) return recovery;
  const std::span<const double> columns[] = {ptq, qat, baseline};
  recovery.fraction = bootstrap(
      columns, [](std::span<const double> sums) { return (sums[0] - sums[1]) / (sums[0] - sums[2]); }, options);
  return recovery;
}

Interval wilson_interval(int64_t successes, int64_t trials) {
  QAT_CHECK(successes >= 0 && successes <= trials);
  if (trials == 0) return {0, 1};
  constexpr double kSquared = kNormalQuantile * kNormalQuantile;
  const auto n = static_cast<double>(trials);
  const double share = static_cast<double>(successes) / n;
  const double center = (share + kSquared / (2 * n)) / (1 + kSquared / n);
  const double half_width =
      kNormalQuantile / (1 + kSquared / n) * std::sqrt(share * (1 - share) / n + kSquared / (4 * n * n));
  // At the ends the formula gives the bound exactly, its floating-point value only nearly.
  return {successes == 0 ? 0.0 : center - half_width, successes == trials ? 1.0 : center + half_width};
}

double mcnemar_p_value(int64_t only_first, int64_t only_second) {
  QAT_CHECK(only_first >= 0 && only_second >= 0);
  const auto n = static_cast<double>(only_first + only_second);
  double tail = 0;
  for (int64_t k = 0; k <= std::min(only_first, only_second); ++k) {
    tail += std::exp(log_binomial(n, static_cast<double>(k)) - n * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

McNemar exact_mcnemar(const std::vector<bool>& first_correct, const std::vector<bool>& second_correct) {
  if (first_correct.size() != second_correct.size()) {
    fail("a paired comparison needs the same items on both sides, but found ", first_correct.size(), " and ",
         second_correct.size(), ": evaluate both models on the same file");
  }
  McNemar result;
  result.items = static_cast<int64_t>(first_correct.size());
  for (size_t i = 0; i < first_correct.size(); ++i) {
    if (first_correct[i] && !second_correct[i]) ++result.only_first;
    if (!first_correct[i] && second_correct[i]) ++result.only_second;
  }
  result.p_value = mcnemar_p_value(result.only_first, result.only_second);
  return result;
}

}  // namespace qat
