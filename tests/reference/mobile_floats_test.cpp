// Bit equality with LiteRT is tests/interop/mobile_floats_against_litert.py; here: what the operations mean, in shapes
// that do and do not fill vectors.
#include "reference/mobile_floats.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

namespace qat::mobile {
namespace {

class MobileFloatsTest : public ::testing::Test {
 protected:
  std::vector<float> normal(int64_t count, float size = 1) {
    std::normal_distribution<float> distribution(0, size);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = distribution(random_);
    return values;
  }

  const unsigned seed_ = std::random_device{}();
  ::testing::ScopedTrace trace_{__FILE__, __LINE__, "seed " + std::to_string(seed_)};
  std::mt19937 random_{seed_};
};

TEST_F(MobileFloatsTest, NormDividesByTheRootOfTheMeanSquare) {
  for (const int64_t width : {1, 7, 8, 16, 33, 64, 100, 1536}) {
    std::vector<float> values = normal(width);
    const std::vector<float> before = values, weight = normal(width);
    double squares = 0;
    for (const float value : before) squares += static_cast<double>(value) * static_cast<double>(value);
    const double root = std::sqrt(squares / static_cast<double>(width) + 1e-6);
    rms_norm(values, weight, 1e-6f);
    for (size_t i = 0; i < values.size(); ++i) {
      const double wanted = static_cast<double>(before[i]) / root * static_cast<double>(weight[i]);
      EXPECT_NEAR(static_cast<double>(values[i]), wanted, 3e-6 * std::fabs(wanted)) << width;
    }
  }
}

TEST_F(MobileFloatsTest, NormWithoutWeightAndOfZeros) {
  std::vector<float> values = normal(48);
  std::vector<float> weighted = values;
  rms_norm(values, {}, 1e-6f);
  rms_norm(weighted, std::vector<float>(48, 1.0f), 1e-6f);
  EXPECT_EQ(values, weighted);
  std::vector<float> zeros(48, 0.0f);
  rms_norm(zeros, {}, 1e-6f);
  EXPECT_EQ(zeros, std::vector<float>(48, 0.0f));
}

TEST_F(MobileFloatsTest, SinesAndCosinesAreCloseToTheirSeries) {
  std::vector<float> angles = normal(500, 300), found(angles.size());
  angles[0] = 0;
  sines(angles, found);
  for (size_t i = 0; i < angles.size(); ++i) EXPECT_NEAR(found[i], std::sin(angles[i]), 2e-5f) << angles[i];
  cosines(angles, found);
  for (size_t i = 0; i < angles.size(); ++i) EXPECT_NEAR(found[i], std::cos(angles[i]), 2e-5f) << angles[i];
}

TEST_F(MobileFloatsTest, GateAndSoftcapAreCloseToTheirFormulas) {
  const std::vector<float> x = normal(300, 4), factor = normal(300);
  std::vector<float> gate = x, capped = x;
  gated_gelu(gate, factor);
  softcap(capped, 3.0f);
  for (size_t i = 0; i < x.size(); ++i) {
    const float inner = 0.7978845608f * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
    EXPECT_NEAR(gate[i], 0.5f * x[i] * (1 + std::tanh(inner)) * factor[i], 2e-5f) << x[i];
    EXPECT_NEAR(capped[i], 3 * std::tanh(x[i] / 3), 1e-6f) << x[i];
  }
}

TEST_F(MobileFloatsTest, SoftmaxIsOneInAllWhereverTheRowStands) {
  for (const int64_t count : {1, 5, 16, 70, 200}) {
    const std::vector<float> scores = normal(count, 3);
    const float largest = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (const float score : scores) sum += std::exp(static_cast<double>(score - largest));
    for (const auto& [first, length] :
         {std::pair<int64_t, int64_t>{0, count}, {0, 1000}, {13, 13 + count}, {130, 512}}) {
      std::vector<float> shares = scores;
      softmax(shares, first, length);
      for (size_t i = 0; i < shares.size(); ++i) {
        const double wanted = std::exp(static_cast<double>(scores[i] - largest)) / sum;
        EXPECT_NEAR(static_cast<double>(shares[i]), wanted, 3e-6 * wanted + 1e-30) << count << " at " << first;
      }
    }
  }
}

TEST_F(MobileFloatsTest, AShareTooSmallForAFloatIsZero) {
  std::vector<float> scores{0.0f, -88.0f, -1e30f};
  softmax(scores, 0, 3);
  EXPECT_EQ(scores, (std::vector<float>{1.0f, 0.0f, 0.0f}));
}

TEST_F(MobileFloatsTest, ProductsAddOneByOneFromTheFirst) {
  for (const auto& [rows, inner, width] :
       {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1}, {1, 300, 64}, {3, 17, 100}, {4, 40, 16}, {9, 64, 143}}) {
    const int64_t x_stride = inner + 3, matrix_stride = width + 5, output_stride = width + 1;
    const std::vector<float> x = normal(rows * x_stride), matrix = normal(inner * matrix_stride);
    constexpr float kUntouched = 77.0f;
    std::vector<float> found(static_cast<size_t>(rows * output_stride), kUntouched);
    multiply_in_order(x.data(), x_stride, rows, inner, matrix.data(), matrix_stride, width, found.data(),
                      output_stride);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t column = 0; column < width; ++column) {
        float sum = 0;
        for (int64_t i = 0; i < inner; ++i) {
          sum = std::fma(x[static_cast<size_t>(row * x_stride + i)],
                         matrix[static_cast<size_t>(i * matrix_stride + column)], sum);
        }
        EXPECT_EQ(found[static_cast<size_t>(row * output_stride + column)], sum) << row << ", " << column;
      }
      EXPECT_EQ(found[static_cast<size_t>(row * output_stride + width)], kUntouched);
    }
  }
}

}  // namespace
}  // namespace qat::mobile
