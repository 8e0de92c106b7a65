#include "eval/paired_difference.h"

#include <algorithm>
#include <cmath>

namespace qat {
namespace {

// `replicates` ascending.
double bootstrap_p_value(std::span<const double> replicates) {
  const auto below_or_at = std::ranges::upper_bound(replicates, 0.0) - replicates.begin();
  const auto at_or_above = replicates.end() - std::ranges::lower_bound(replicates, 0.0);
  const auto other_side = static_cast<double>(std::min(below_or_at, at_or_above));
  return std::min(1.0, 2 * (1 + other_side) / (1 + static_cast<double>(replicates.size())));
}

}  // namespace

PairedDifference document_difference(std::span<const double> first, std::span<const double> second,
                                     std::span<const double> weights, const BootstrapOptions& options) {
  const std::span<const double> columns[] = {first, second, weights};
  const auto statistic = [](std::span<const double> sums) { return (sums[0] - sums[1]) / sums[2]; };
  const std::vector<double> replicates = bootstrap_replicates(columns, statistic, options);
  double difference = 0;
  double weight = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    difference += first[i] - second[i];
    weight += weights[i];
  }
  PairedDifference result;
  result.samples = std::ranges::count_if(weights, [](double value) { return value > 0; });
  result.judgeable = result.samples >= kFewestDocuments;
  result.estimate.value = difference / weight;
  result.estimate.interval = percentile_interval(replicates, options.confidence);
  if (result.judgeable) result.p_value = bootstrap_p_value(replicates);
  return result;
}

PairedDifference answer_difference(const std::vector<bool>& first_correct, const std::vector<bool>& second_correct) {
  const McNemar test = exact_mcnemar(first_correct, second_correct);
  PairedDifference result;
  result.samples = test.items;
  result.p_value = test.p_value;
  if (test.items == 0) {
    result.estimate.interval = {-1, 1};
    return result;
  }
  const auto gained = static_cast<double>(test.only_first - test.only_second);
  const auto discordant = static_cast<double>(test.only_first + test.only_second);
  result.estimate.value = gained / static_cast<double>(test.items);
  const double items = static_cast<double>(test.items) + 2;
  const double center = gained / items;
  const double half_width = kNormalQuantile * std::sqrt(discordant + 1 - gained * gained / items) / items;
  result.estimate.interval = {std::max(-1.0, center - half_width), std::min(1.0, center + half_width)};
  return result;
}

}  // namespace qat
