// How much a quantizer changes what passes through it.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

namespace qat {

class QuantizationStatistics {
 public:
  // `limit_low`, `limit_high`: the range that the codes cover.
  void add(std::span<const float> values, std::span<const float> quantized, float limit_low, float limit_high) {
    for (size_t i = 0; i < values.size(); ++i) {
      const double value = values[i];
      const double error = static_cast<double>(quantized[i]) - value;
      signal_ += value * value;
      noise_ += error * error;
      clipped_ += values[i] < limit_low || values[i] > limit_high ? 1 : 0;
    }
    count_ += static_cast<int64_t>(values.size());
  }

  int64_t count() const { return count_; }
  // Share of values outside the range.
  double clipping_rate() const { return count_ > 0 ? static_cast<double>(clipped_) / static_cast<double>(count_) : 0; }
  // Signal to noise in dB; 200 where nothing is lost.
  double signal_to_noise() const {
    return noise_ > 0 && signal_ > 0 ? std::fmin(10 * std::log10(signal_ / noise_), 200.0) : 200.0;
  }

 private:
  int64_t count_ = 0;
  int64_t clipped_ = 0;
  double signal_ = 0;
  double noise_ = 0;
};

}  // namespace qat
