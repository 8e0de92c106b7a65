// How much a quantizer changes what passes through it.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
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

  // Where codes say what is clipped: values that lie more than half a step beyond the first or the last one.
  void add(std::span<const float> values, std::span<const float> quantized, std::span<const int8_t> codes, int code_min,
           int code_max) {
    for (size_t i = 0; i < values.size(); ++i) {
      float limit_low = -std::numeric_limits<float>::infinity();
      float limit_high = std::numeric_limits<float>::infinity();
      if (codes[i] == code_min || codes[i] == code_max) {
        const float step = std::fabs(quantized[i] / static_cast<float>(codes[i]));
        (quantized[i] < 0 ? limit_low : limit_high) = quantized[i] + std::copysign(step / 2, quantized[i]);
      }
      add(values.subspan(i, 1), quantized.subspan(i, 1), limit_low, limit_high);
    }
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
