#include "eval/distribution.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "core/error.h"
#include "eval/statistics.h"

namespace qat {
namespace {

constexpr double kSmallest = 1e-12;
constexpr double kBinRatio = 1.002;
constexpr int64_t kInfiniteBin = std::numeric_limits<int64_t>::max();

// Bins are numbered like the values: 0 for 0, upwards for positive values, downwards for negative ones.
int64_t bin_of(double value) {
  const double size = std::fabs(value);
  if (size < kSmallest) return 0;
  const int64_t bin =
      std::isinf(size) ? kInfiniteBin : 1 + static_cast<int64_t>(std::log(size / kSmallest) / std::log(kBinRatio));
  return value < 0 ? -bin : bin;
}

double middle_of(int64_t bin) {
  if (bin == 0) return 0;
  const double sign = bin < 0 ? -1.0 : 1.0;
  if (std::abs(bin) == kInfiniteBin) return sign * std::numeric_limits<double>::infinity();
  return sign * kSmallest * std::pow(kBinRatio, static_cast<double>(std::abs(bin)) - 0.5);
}

}  // namespace

void Distribution::add(double value) {
  QAT_CHECK(!std::isnan(value));
  widen(value, value);
  ++count_;
  if (is_exact()) {
    values_.push_back(value);
  } else {
    move_into_bins();
    ++bins_[bin_of(value)];
  }
}

void Distribution::merge(const Distribution& other) {
  if (other.count_ == 0) return;
  widen(other.minimum_, other.maximum_);
  count_ += other.count_;
  const bool exact = is_exact() && other.is_exact();
  values_.insert(values_.end(), other.values_.begin(), other.values_.end());
  if (exact) return;
  move_into_bins();
  for (const auto& [bin, times] : other.bins_) bins_[bin] += times;
}

std::vector<double> Distribution::quantiles(std::span<const double> probabilities) const {
  QAT_CHECK(count_ > 0);
  std::vector<double> result;
  if (is_exact()) {
    std::vector<double> sorted = values_;
    std::ranges::sort(sorted);
    for (const double probability : probabilities) result.push_back(sorted_quantile(sorted, probability));
    return result;
  }
  auto bin = bins_.begin();
  int64_t up_to_bin = bin->second;
  for (const double probability : probabilities) {
    const auto position = static_cast<int64_t>(probability * static_cast<double>(count_ - 1));
    while (up_to_bin <= position) up_to_bin += (++bin)->second;
    const double inside = std::clamp(middle_of(bin->first), minimum_, maximum_);
    result.push_back(position == 0 ? minimum_ : position == count_ - 1 ? maximum_ : inside);
  }
  return result;
}

void Distribution::widen(double low, double high) {
  minimum_ = count_ == 0 ? low : std::min(minimum_, low);
  maximum_ = count_ == 0 ? high : std::max(maximum_, high);
}

void Distribution::move_into_bins() {
  for (const double value : values_) ++bins_[bin_of(value)];
  values_ = {};
}

DistributionSummary summarize(const Distribution& values, double mean) {
  if (values.count() == 0) return {};
  constexpr double kProbabilities[] = {0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999};
  const std::vector<double> at = values.quantiles(kProbabilities);
  return {mean, values.minimum(), at[0], at[1], at[2], at[3], at[4], at[5], at[6], values.maximum()};
}

}  // namespace qat
