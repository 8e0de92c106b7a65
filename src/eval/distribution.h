// The percentiles of as many values as a run measures, in bounded memory.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

namespace qat {

// Up to kExactValues values are kept and their percentiles are exact. Beyond, only their counts in bins are, each so
// narrow that a percentile is wrong by at most 0.1 % of itself; sizes below 1e-12 count as 0. Minimum and maximum are
// exact always. The order in which values come changes nothing.
class Distribution {
 public:
  static constexpr int64_t kExactValues = int64_t{1} << 20;

  // `value` may be infinite but not NaN.
  void add(double value);
  void merge(const Distribution& other);

  int64_t count() const { return count_; }
  // Of at least one value.
  double minimum() const { return minimum_; }
  double maximum() const { return maximum_; }
  // For ascending probabilities. While exact as sorted_quantile() interpolates; from bins, the value at the position
  // below.
  std::vector<double> quantiles(std::span<const double> probabilities) const;

 private:
  bool is_exact() const { return count_ <= kExactValues; }
  void widen(double low, double high);
  void move_into_bins();

  int64_t count_ = 0;
  double minimum_ = 0;
  double maximum_ = 0;
  std::vector<double> values_;       // empty once binned
  std::map<int64_t, int64_t> bins_;  // how many values by bin, in ascending order of the values
};

// Of values per token; all 0 without any.
struct DistributionSummary {
  double mean = 0;
  double minimum = 0;
  double percentile_0_1 = 0;
  double percentile_1 = 0;
  double percentile_10 = 0;
  double median = 0;
  double percentile_90 = 0;
  double percentile_99 = 0;
  double percentile_99_9 = 0;
  double maximum = 0;
};

DistributionSummary summarize(const Distribution& values, double mean);

}  // namespace qat
