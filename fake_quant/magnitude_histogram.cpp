#include "fake_quant/magnitude_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "quant/grid.h"

namespace qat {

namespace {

// The top bits of a positive float: 8 of the exponent, 6 of the mantissa.
constexpr int kShift = 17;

size_t bin_of(float magnitude) { return std::bit_cast<uint32_t>(magnitude) >> kShift; }
float centre_of(size_t bin) {
  return std::bit_cast<float>((static_cast<uint32_t>(bin) << kShift) + (uint32_t{1} << (kShift - 1)));
}

}  // namespace

void MagnitudeHistogram::add(std::span<const float> values) {
  for (const float value : values) {
    const float magnitude = std::fabs(value);
    if (!(magnitude <= std::numeric_limits<float>::max())) fail("an activation is ", value, " during calibration");
    ++bins_[bin_of(magnitude)];
    largest_ = std::max(largest_, magnitude);
  }
  count_ += static_cast<int64_t>(values.size());
}

void MagnitudeHistogram::add(const MagnitudeHistogram& other) {
  for (size_t bin = 0; bin < bins_.size(); ++bin) bins_[bin] += other.bins_[bin];
  count_ += other.count_;
  largest_ = std::max(largest_, other.largest_);
}

float MagnitudeHistogram::percentile(double percent) const {
  const auto wanted = static_cast<int64_t>(std::ceil(percent / 100 * static_cast<double>(count_)));
  int64_t seen = 0;
  for (size_t bin = 0; bin < bins_.size(); ++bin) {
    seen += bins_[bin];
    if (seen >= wanted && bins_[bin] > 0) return std::min(centre_of(bin), largest_);
  }
  return largest_;
}

float MagnitudeHistogram::least_error_scale() const {
  if (largest_ == 0) return 0;
  constexpr double kStep = 0.95;
  constexpr int kCandidates = 160;  // down to 1/3600 of the range that clips nothing
  double best_error = std::numeric_limits<double>::infinity();
  double best = 0;
  double scale = static_cast<double>(largest_) / grid::kActivationMax;
  for (int i = 0; i < kCandidates; ++i, scale *= kStep) {
    const double limit = scale * (grid::kActivationMax + 0.5);
    double error = 0;
    int64_t inside = count_;
    for (size_t bin = bin_of(largest_) + 1; bin-- > 0;) {
      const auto magnitude = static_cast<double>(std::min(centre_of(bin), largest_));
      if (magnitude <= limit) break;
      const double excess = magnitude - scale * grid::kActivationMax;
      error += excess * excess * static_cast<double>(bins_[bin]);
      inside -= bins_[bin];
    }
    error += scale * scale / 12 * static_cast<double>(inside);
    if (error < best_error) {
      best_error = error;
      best = scale;
    }
  }
  return static_cast<float>(best);
}

}  // namespace qat
