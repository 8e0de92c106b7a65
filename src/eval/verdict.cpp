#include "eval/verdict.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "eval/table.h"

namespace qat {
namespace {

Finding finding_of(const Comparison& comparison, double adjusted_p_value, double level) {
  if (!comparison.difference.judgeable) return Finding::NotJudged;
  const double value = comparison.difference.estimate.value;
  if (adjusted_p_value >= level || value == 0) return Finding::NoDifferenceShown;
  return (value < 0) == comparison.smaller_is_better ? Finding::Better : Finding::Worse;
}

// The interval as sizes in the direction of the estimate; its far end may lie on the other side of 0.
std::string size_of(const Comparison& comparison) {
  const Estimate& estimate = comparison.difference.estimate;
  const double sign = estimate.value < 0 ? -1.0 : 1.0;
  const auto [low, high] = std::minmax({sign * estimate.interval.low, sign * estimate.interval.high});
  return comparison.format(sign * estimate.value) + " (" + comparison.format(low) + " – " + comparison.format(high) +
         ")";
}

std::string words(const Comparison& comparison, const Verdict& verdict, size_t family, double level) {
  switch (verdict.finding) {
    case Finding::Better:
      return "better by " + size_of(comparison);
    case Finding::Worse:
      return "worse by " + size_of(comparison);
    case Finding::NotJudged:
      return join("not judged: ", comparison.difference.samples, " documents, ", kFewestDocuments, " are needed");
    case Finding::NoDifferenceShown:
      break;
  }
  const double p = comparison.difference.p_value;
  if (p >= level) return "no difference shown";
  return join("no difference shown (p ", format_significant(p, 2), " alone, but not among ", family, " comparisons)");
}

}  // namespace

std::vector<double> holm_adjusted(std::span<const double> p_values) {
  std::vector<size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, [&](size_t a, size_t b) { return p_values[a] < p_values[b]; });
  std::vector<double> adjusted(p_values.size());
  double largest = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    const double corrected = static_cast<double>(order.size() - rank) * p_values[order[rank]];
    largest = std::max(largest, std::min(1.0, corrected));
    adjusted[order[rank]] = largest;
  }
  return adjusted;
}

std::vector<Verdict> judge(std::span<const Comparison> family, double level) {
  std::vector<double> p_values;
  for (const Comparison& comparison : family) p_values.push_back(comparison.difference.p_value);
  const std::vector<double> adjusted = holm_adjusted(p_values);
  std::vector<Verdict> verdicts;
  for (size_t i = 0; i < family.size(); ++i) {
    Verdict verdict{finding_of(family[i], adjusted[i], level), adjusted[i], {}};
    verdict.text = words(family[i], verdict, family.size(), level);
    verdicts.push_back(std::move(verdict));
  }
  return verdicts;
}

}  // namespace qat
