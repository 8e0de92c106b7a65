// A plot's axis: which values it covers, where its ticks are, where a value lies on it.
#pragma once

#include <string>
#include <vector>

namespace qat {

enum class AxisScale { Linear, Logarithmic };

class PlotAxis {
 public:
  // An axis that covers the finite values (with Logarithmic: the positive ones) with round ends.
  PlotAxis(AxisScale scale, const std::vector<double>& values);

  // Position between 0 and 1; values that the axis does not cover are moved to its nearer end.
  double position(double value) const;
  const std::vector<double>& ticks() const { return ticks_; }
  double low() const { return low_; }
  double high() const { return high_; }

 private:
  void fit_linear();
  void fit_logarithmic();

  AxisScale scale_;
  double low_ = 0;
  double high_ = 1;
  std::vector<double> ticks_;
};

// "1,000", "0.25", "1e-5".
std::string tick_label(double value);

}  // namespace qat
