#include "fake_quant/magnitude_histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "quant/grid.h"
#include "quant/weight_rows.h"
#include "support/expect_error.h"

namespace qat {
namespace {

constexpr float kBinWidth = 1.0F / 64;  // relative

TEST(MagnitudeHistogramTest, PercentilesAreThoseOfTheSortedMagnitudes) {
  const auto seed = static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  std::vector<float> values = test::draw_row(test::RowKind::Outliers, 5000, random);
  MagnitudeHistogram histogram;
  histogram.add(std::span<const float>(values).first(1234));
  histogram.add(std::span<const float>(values).subspan(1234));
  for (float& value : values) value = std::fabs(value);
  std::sort(values.begin(), values.end());
  for (const double percent : {1.0, 50.0, 90.0, 99.0, 99.9, 100.0}) {
    const float exact = values[static_cast<size_t>(std::ceil(percent / 100 * 5000)) - 1];
    EXPECT_NEAR(histogram.percentile(percent), exact, kBinWidth * exact) << percent;
  }
  EXPECT_EQ(histogram.largest(), values.back());
  EXPECT_EQ(histogram.count(), 5000);
}

TEST(MagnitudeHistogramTest, NothingAndZerosHaveNoScale) {
  MagnitudeHistogram histogram;
  EXPECT_EQ(histogram.percentile(99), 0.0F);
  EXPECT_EQ(histogram.least_error_scale(), 0.0F);
  histogram.add(std::vector<float>{0.0F, -0.0F});
  EXPECT_EQ(histogram.count(), 2);
  EXPECT_EQ(histogram.percentile(99), 0.0F);
  EXPECT_EQ(histogram.least_error_scale(), 0.0F);
}

TEST(MagnitudeHistogramTest, AddingAnotherIsAddingItsValues) {
  SplitMix64 random(4);
  const auto values = test::draw_row(test::RowKind::Gaussian, 800, random);
  MagnitudeHistogram whole;
  whole.add(values);
  MagnitudeHistogram first;
  MagnitudeHistogram second;
  first.add(std::span<const float>(values).first(300));
  second.add(std::span<const float>(values).subspan(300));
  first.add(second);
  EXPECT_EQ(first.count(), whole.count());
  EXPECT_EQ(first.largest(), whole.largest());
  EXPECT_EQ(first.percentile(70), whole.percentile(70));
  EXPECT_EQ(first.least_error_scale(), whole.least_error_scale());
}

TEST(MagnitudeHistogramTest, ValuesThatAreNoNumbersAreErrors) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    MagnitudeHistogram histogram;
    testing::expect_error([&] { histogram.add(std::vector<float>{1.0F, bad}); }, {"during calibration"});
  }
}

double squared_error(const std::vector<float>& values, float scale) {
  double error = 0;
  for (const float value : values) {
    const int8_t code =
        grid::integer_code(value, grid::inverse_scale(scale), grid::kActivationMin, grid::kActivationMax);
    const double difference = static_cast<double>(grid::integer_value(code, scale)) - static_cast<double>(value);
    error += difference * difference;
  }
  return error;
}

// Against the error by the scalar rule under all scales of a fine mesh; heavy tails, so that clipping pays.
TEST(MagnitudeHistogramTest, LeastErrorScaleIsNearTheBestByBruteForce) {
  SplitMix64 random(9);
  for (const double power : {1.0, 1.5, 2.5}) {
    std::vector<float> values = test::draw_row(test::RowKind::Gaussian, 20000, random);
    for (float& value : values)
      value = std::copysign(std::pow(std::fabs(50 * value), static_cast<float>(power)), value);
    MagnitudeHistogram histogram;
    histogram.add(values);
    double best = std::numeric_limits<double>::infinity();
    for (float scale = histogram.largest() / 127; scale > histogram.largest() / 127 / 40; scale *= 0.99F) {
      best = std::min(best, squared_error(values, scale));
    }
    EXPECT_LE(squared_error(values, histogram.least_error_scale()), 1.05 * best) << "power " << power;
    if (power == 2.5) {
      EXPECT_LT(histogram.least_error_scale(), 0.95F * histogram.largest() / 127);
    }
  }
}

}  // namespace
}  // namespace qat
