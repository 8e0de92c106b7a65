// Magnitudes seen at an activation edge, and the static int8 scales that follow from them.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace qat {

// Counts in bins of equal relative width (64 to an octave, over all of fp32).
class MagnitudeHistogram {
 public:
  // Values that are not finite throw Error.
  void add(std::span<const float> values);
  void add(const MagnitudeHistogram& other);

  int64_t count() const { return count_; }
  float largest() const { return largest_; }
  // The magnitude below which `percent` of the values lie; 0 if nothing was seen.
  float percentile(double percent) const;
  // The scale of least squared error with codes -128..127: rounding counts as uniform noise of scale^2 / 12, clipping
  // by its excess. 0 if only zeros were seen.
  float least_error_scale() const;

 private:
  static constexpr int kBins = 1 << 14;

  std::array<int64_t, kBins> bins_{};
  int64_t count_ = 0;
  float largest_ = 0;
};

}  // namespace qat
