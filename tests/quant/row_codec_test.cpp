// Laws of the row codec: vector kernels equal the scalar rules of grid.h bit for bit, and searched scales are good
// ones.
#include "quant/row_codec.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "quant/grid.h"
#include "quant/weight_rows.h"
#include "support/fresh_seed.h"

namespace qat {
namespace {

using test::RowKind;
using testing::fresh_seed;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNotANumber = std::numeric_limits<float>::quiet_NaN();

std::vector<uint32_t> bits(const std::vector<float>& values) {
  std::vector<uint32_t> result;
  for (const float value : values) result.push_back(std::bit_cast<uint32_t>(value));
  return result;
}

int8_t scalar_code(Scheme id, float value, float scale) {
  return grid::integer_code(value, grid::inverse_scale(scale), scheme(id).code_min, scheme(id).code_max);
}

std::vector<int8_t> scalar_codes(Scheme id, const std::vector<float>& values, const std::vector<float>& scales) {
  const size_t width = values.size() / scales.size();
  std::vector<int8_t> codes;
  for (size_t i = 0; i < values.size(); ++i) codes.push_back(scalar_code(id, values[i], scales[i / width]));
  return codes;
}

// Values on codes, halfway between them, beyond the ends, and no numbers, at random places of a row of another kind.
std::vector<float> hard_row(RowKind kind, size_t count, float scale, SplitMix64& random) {
  std::vector<float> row = test::draw_row(kind, count, random);
  for (float& value : row) {
    switch (random.below(12)) {
      case 0:
        value = scale * 0.5f * static_cast<float>(static_cast<int>(random.below(600)) - 300);
        break;
      case 1:
        value = random.below(2) == 0 ? -0.0f : -0.4f * scale;
        break;
      case 2:
        value = random.below(2) == 0 ? kInfinity : -kInfinity;
        break;
      case 3:
        value = random.below(2) == 0 ? kNotANumber : std::numeric_limits<float>::denorm_min();
        break;
      case 4:
        value = scale * test::gaussian(random);
        break;
      default:
        break;
    }
  }
  return row;
}

// Runs the body once for every instruction set of this machine that the kernels were compiled for.
template <class Body>
void for_each_target(const Body& body) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    body();
    hwy::SetSupportedTargetsForTest(0);
  }
}

class RowCodec : public ::testing::TestWithParam<Scheme> {
 protected:
  // Calls check(values, scale) for rows of every kind and of every length that leaves another tail.
  template <class Check>
  void for_hard_rows(const Check& check) {
    const uint64_t seed = fresh_seed();
    SCOPED_TRACE("seed " + std::to_string(seed));
    for_each_target([&] {
      SplitMix64 random(seed);
      for (const RowKind kind : test::kRowKinds) {
        for (size_t count = 1; count <= 67; ++count) {
          SCOPED_TRACE("row kind " + std::to_string(static_cast<int>(kind)) + ", " + std::to_string(count) + " values");
          const float scale =
              std::ldexp(0.5f + 0.5f * static_cast<float>(random.uniform()), 4 - static_cast<int>(random.below(20)));
          check(hard_row(kind, count, scale, random), scale);
          if (::testing::Test::HasFatalFailure()) return;
        }
      }
    });
  }
};

TEST_P(RowCodec, EncodingEqualsTheScalarRule) {
  for_hard_rows([&](const std::vector<float>& values, float scale) {
    // Two groups, so that the second starts in the middle of a vector.
    std::vector<float> both = values;
    both.insert(both.end(), values.begin(), values.end());
    const std::vector<float> scales{scale, 3 * scale};
    const auto width = static_cast<int64_t>(values.size());
    std::vector<int8_t> codes(both.size());
    encode_groups(GetParam(), std::span<const float>(both), scales, width, codes);
    ASSERT_EQ(codes, scalar_codes(GetParam(), both, scales));

    const std::vector<BFloat16> masters = test::to_bfloat16(both);
    encode_groups(GetParam(), std::span<const BFloat16>(masters), scales, width, codes);
    ASSERT_EQ(codes, scalar_codes(GetParam(), test::widen(masters), scales));
  });
}

TEST_P(RowCodec, FakeQuantizationIsDecodedEncodingWithoutNegativeZeros) {
  for_hard_rows([&](const std::vector<float>& values, float scale) {
    std::vector<float> wanted;
    for (const float value : values)
      wanted.push_back(grid::integer_value(scalar_code(GetParam(), value, scale), scale));
    std::vector<float> results(values.size());
    fake_quantize_group(GetParam(), values, scale, results);
    ASSERT_EQ(bits(results), bits(wanted));
    for (const float result : results) ASSERT_NE(std::bit_cast<uint32_t>(result), std::bit_cast<uint32_t>(-0.0f));

    std::vector<int8_t> codes(values.size());
    std::vector<float> decoded(values.size());
    encode_groups(GetParam(), std::span<const float>(values), {&scale, 1}, static_cast<int64_t>(values.size()), codes);
    decode_groups(codes, {&scale, 1}, static_cast<int64_t>(values.size()), decoded);
    ASSERT_EQ(bits(decoded), bits(wanted));
    std::vector<BFloat16> narrow(values.size());
    decode_groups(codes, {&scale, 1}, static_cast<int64_t>(values.size()), narrow);
    ASSERT_EQ(narrow, test::to_bfloat16(wanted));
    std::vector<float> in_place = values;
    fake_quantize_group(GetParam(), in_place, scale, in_place);
    ASSERT_EQ(bits(in_place), bits(wanted));
  });
}

TEST_P(RowCodec, ScaleGradientEqualsTheScalarRule) {
  SplitMix64 noise(3);
  for_hard_rows([&](std::vector<float> values, float scale) {
    std::vector<float> gradient;
    std::vector<float> wanted;
    double sum = 0;
    double size = 0;
    const float inverse = grid::inverse_scale(scale);
    for (float& value : values) {
      if (std::isnan(value)) value = 0;  // training stops before a master is no number
      gradient.push_back(test::gaussian(noise));
      const int8_t code = scalar_code(GetParam(), value, scale);
      const bool inside =
          grid::integer_inside_range(value, inverse, scheme(GetParam()).code_min, scheme(GetParam()).code_max);
      wanted.push_back(inside ? gradient.back() : 0.0f);
      const double step =
          inside ? static_cast<double>(code) - static_cast<double>(value * inverse) : static_cast<double>(code);
      sum += static_cast<double>(gradient.back()) * step;
      size += std::fabs(static_cast<double>(gradient.back()) * step);
    }
    std::vector<float> masked(values.size());
    const double found = scale_gradient(GetParam(), values, gradient, scale, masked);
    ASSERT_EQ(bits(masked), bits(wanted));
    ASSERT_NEAR(found, sum, 1e-5 * size + 1e-12);
    std::vector<float> aliased = gradient;
    ASSERT_EQ(scale_gradient(GetParam(), values, aliased, scale, aliased), found);
    ASSERT_EQ(bits(aliased), bits(wanted));
  });
}

TEST_P(RowCodec, Bfloat16RowsGiveTheRoundedResultsOfTheirWidenedValues) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 noise(seed);
  for_hard_rows([&](const std::vector<float>& row, float scale) {
    std::vector<BFloat16> values, gradient;
    std::vector<float> wide_values, wide_gradient;
    for (const float value : row) {
      values.push_back(to_bfloat16(std::isnan(value) ? 0.0f : value));
      gradient.push_back(to_bfloat16(test::gaussian(noise)));
      wide_values.push_back(to_float(values.back()));
      wide_gradient.push_back(to_float(gradient.back()));
    }
    std::vector<BFloat16> results(row.size()), masked(row.size());
    std::vector<float> wide_results(row.size()), wide_masked(row.size());
    fake_quantize_group(GetParam(), std::span<const BFloat16>(values), scale, results);
    fake_quantize_group(GetParam(), std::span<const float>(wide_values), scale, wide_results);
    EXPECT_EQ(scale_gradient(GetParam(), std::span<const BFloat16>(values), gradient, scale, masked),
              scale_gradient(GetParam(), std::span<const float>(wide_values), wide_gradient, scale, wide_masked));
    for (size_t i = 0; i < row.size(); ++i) {
      ASSERT_EQ(results[i].bits, to_bfloat16(wide_results[i]).bits) << row[i];
      ASSERT_EQ(to_float(masked[i]), wide_masked[i]) << row[i];
    }
  });
}

TEST_P(RowCodec, SquaredErrorIsThatOfTheScalarRule) {
  for_hard_rows([&](std::vector<float> values, float scale) {
    double wanted = 0;
    for (float& value : values) {
      if (!std::isfinite(value)) value = 0.3f * scale;
      const double error = static_cast<double>(grid::integer_value(scalar_code(GetParam(), value, scale), scale)) -
                           static_cast<double>(value);
      wanted += error * error;
    }
    // Squares of fp32 overflow where a row is huge; a double does not.
    if (wanted > 1e37) return;
    ASSERT_NEAR(squared_error(GetParam(), values, scale), wanted, 1e-5 * wanted + 1e-37);
  });
}

TEST_P(RowCodec, TiesGoToTheEvenCodeAndTheEndsSaturate) {
  const float top = static_cast<float>(scheme(GetParam()).code_max);
  const float bottom = static_cast<float>(scheme(GetParam()).code_min);
  // Eight of each, so that the vector loop takes them.
  const std::vector<std::pair<float, int>> cases{{0.5f, 0},
                                                 {-0.5f, 0},
                                                 {-1.5f, -2},
                                                 {0.75f, 1},
                                                 {1e30f, scheme(GetParam()).code_max},
                                                 {top, scheme(GetParam()).code_max},
                                                 {bottom, scheme(GetParam()).code_min},
                                                 {-1e30f, scheme(GetParam()).code_min},
                                                 {kNotANumber, scheme(GetParam()).code_max},
                                                 {kInfinity, scheme(GetParam()).code_max},
                                                 {-kInfinity, scheme(GetParam()).code_min}};
  for (const auto& [value, code] : cases) {
    const float scale = 0.25f;
    const std::vector<float> values(33, value * scale);
    std::vector<int8_t> codes(33);
    encode_groups(GetParam(), std::span<const float>(values), {&scale, 1}, 33, codes);
    EXPECT_EQ(codes, std::vector<int8_t>(33, static_cast<int8_t>(code))) << value;
  }
}

TEST_P(RowCodec, SearchedScalesAreNeverWorseThanTheLargestMagnitudes) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  for (const RowKind kind : test::kRowKinds) {
    if (kind == RowKind::Huge) continue;  // squared errors overflow
    for (int repeat = 0; repeat < 20; ++repeat) {
      const auto row = test::draw_row(kind, 1 + random.below(300), random);
      const float largest = absolute_max_scale(GetParam(), row);
      const float searched = searched_scale(GetParam(), row);
      for (const float scale : {largest, searched}) {
        EXPECT_GE(scale, std::numeric_limits<float>::min());
        EXPECT_TRUE(std::isfinite(scale));
      }
      EXPECT_LE(squared_error(GetParam(), row, searched), squared_error(GetParam(), row, largest))
          << "row kind " << static_cast<int>(kind);
    }
  }
}

// The error of all scales on a fine mesh, by the scalar rule in doubles.
double least_error_by_brute_force(Scheme id, const std::vector<float>& row) {
  float largest = 0;
  for (const float value : row) largest = std::fmax(largest, std::fabs(value));
  const float last = static_cast<float>(-scheme(id).code_min);
  double best = kInfinity;
  for (float scale = largest / last / 16; scale < 1.3f * largest / static_cast<float>(scheme(id).code_max);
       scale *= 1.001f) {
    double error = 0;
    for (const float value : row) {
      const double difference =
          static_cast<double>(grid::integer_value(scalar_code(id, value, scale), scale)) - static_cast<double>(value);
      error += difference * difference;
    }
    best = std::fmin(best, error);
  }
  return best;
}

TEST_P(RowCodec, SearchedScalesAreWithinOnePercentOfTheBest) {
  SplitMix64 random(7);
  for (int repeat = 0; repeat < 4; ++repeat) {
    const auto row = test::draw_row(RowKind::Gaussian, 1536, random);
    EXPECT_LE(squared_error(GetParam(), row, searched_scale(GetParam(), row)),
              1.01 * least_error_by_brute_force(GetParam(), row));
  }
}

TEST_P(RowCodec, AGroupOfZerosHasScaleOne) {
  const std::vector<float> zeros{0.0f, -0.0f, 0.0f};
  EXPECT_EQ(absolute_max_scale(GetParam(), zeros), 1.0f);
  EXPECT_EQ(searched_scale(GetParam(), zeros), 1.0f);
}

TEST_P(RowCodec, TheLargestMagnitudeGetsTheLastPositiveCode) {
  const std::vector<float> row{0.5f, -3.0f, 1.0f};
  EXPECT_EQ(absolute_max_scale(GetParam(), row), 3.0f / static_cast<float>(scheme(GetParam()).code_max));
  const std::vector<float> tiny{std::numeric_limits<float>::denorm_min()};
  EXPECT_EQ(absolute_max_scale(GetParam(), tiny), std::numeric_limits<float>::min());
}

INSTANTIATE_TEST_SUITE_P(Integers, RowCodec, ::testing::Values(Scheme::Int2, Scheme::Int4, Scheme::Int8),
                         [](const auto& test) { return std::string(scheme(test.param).name); });

}  // namespace
}  // namespace qat
