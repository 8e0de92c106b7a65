#include "eval/plot_axis.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "eval/table.h"

namespace qat {
namespace {

// The step of 1, 2 or 5 times a power of ten that divides `range` into about five.
double tick_step(double range) {
  const double rough = range / 5;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * 0.9999) return factor * power;
  }
  return 10 * power;
}

}  // namespace

PlotAxis::PlotAxis(AxisScale scale, const std::vector<double>& values) : scale_(scale) {
  bool any = false;
  for (const double value : values) {
    if (!std::isfinite(value) || (scale == AxisScale::Logarithmic && value <= 0)) continue;
    low_ = any ? std::min(low_, value) : value;
    high_ = any ? std::max(high_, value) : value;
    any = true;
  }
  if (!any) {
    low_ = scale == AxisScale::Logarithmic ? 0.1 : 0.0;
    high_ = 1;
  }
  scale == AxisScale::Logarithmic ? fit_logarithmic() : fit_linear();
}

void PlotAxis::fit_linear() {
  if (high_ - low_ <= 1e-9 * std::max(std::fabs(low_), std::fabs(high_))) {
    const double margin = low_ == 0 ? 0.5 : 0.1 * std::fabs(low_);
    low_ -= margin;
    high_ += margin;
  }
  // Zero belongs on the axis when the data come near it.
  if (low_ > 0 && low_ < 0.3 * high_) low_ = 0;
  const double step = tick_step(high_ - low_);
  const double first = std::floor(low_ / step + 1e-9);
  const double last = std::ceil(high_ / step - 1e-9);
  for (double tick = first; tick <= last; ++tick) ticks_.push_back(tick * step);
  low_ = ticks_.front();
  high_ = ticks_.back();
}

void PlotAxis::fit_logarithmic() {
  const double decades = std::log10(high_ / low_);
  const double first = std::floor(std::log10(low_));
  const double last = std::ceil(std::log10(high_));
  if (decades > 2.5) {
    const double every = std::max(1.0, std::ceil((last - first) / 8));
    for (double exponent = first; exponent < last + every; exponent += every)
      ticks_.push_back(std::pow(10.0, exponent));
  } else {
    for (double exponent = first - 1; exponent <= last; ++exponent) {
      for (const double factor : {1.0, 2.0, 5.0}) ticks_.push_back(factor * std::pow(10.0, exponent));
    }
    // Only the ticks around the data: the last one at or below, the first one at or above.
    const auto at_or_below = std::upper_bound(ticks_.begin(), ticks_.end(), low_ * (1 + 1e-9));
    ticks_.erase(ticks_.begin(), at_or_below - 1);
    const auto at_or_above = std::lower_bound(ticks_.begin(), ticks_.end(), high_ * (1 - 1e-9));
    ticks_.erase(at_or_above + 1, ticks_.end());
    if (ticks_.size() == 1) ticks_.push_back(ticks_.front() * 2);
  }
  low_ = ticks_.front();
  high_ = ticks_.back();
}

double PlotAxis::position(double value) const {
  const double inside = std::clamp(value, low_, high_);
  if (scale_ == AxisScale::Linear) return (inside - low_) / (high_ - low_);
  return std::log(inside / low_) / std::log(high_ / low_);
}

std::string tick_label(double value) {
  const double magnitude = std::fabs(value);
  if (magnitude > 0 && (magnitude < 0.9999e-3 || magnitude >= 1e7)) {
    std::string label = format_significant(value, 3);
    if (label.find('e') == std::string::npos) {
      char buffer[32];
      std::snprintf(buffer, sizeof buffer, "%.0e", value);
      label = buffer;
    }
    // "1e-05" -> "1e-5", "2e+07" -> "2e7"
    const size_t exponent = label.find('e') + 1;
    if (label[exponent] == '+') label.erase(exponent, 1);
    const size_t digits = exponent + (label[exponent] == '-' ? 1 : 0);
    while (label[digits] == '0') label.erase(digits, 1);
    return label;
  }
  std::string label = format_significant(value, 7);
  if (magnitude < 1e-12) return "0";
  const size_t point = std::min(label.find('.'), label.size());
  const size_t first_digit = value < 0 ? 1 : 0;
  for (size_t i = point; i > first_digit + 3; i -= 3) label.insert(i - 3, ",");
  return label;
}

}  // namespace qat
