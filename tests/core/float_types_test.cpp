#include "core/float_types.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "core/random.h"

namespace qat {
namespace {

TEST(Float16, EveryBitPatternSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Float16 half{static_cast<uint16_t>(bits)};
    const float value = to_float(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(to_float(to_float16(value))));
    } else {
      ASSERT_EQ(to_float16(value).bits, bits);
    }
  }
}

// The compiler's own _Float16 conversion is the oracle.
TEST(Float16, RoundsLikeTheCompiler) {
  const uint64_t seed = 20260;
  SplitMix64 random(seed);
  for (int i = 0; i < 2'000'000; ++i) {
    const auto bits = static_cast<uint32_t>(random.next());
    const auto value = std::bit_cast<float>(bits);
    if (std::isnan(value)) continue;
    const auto expected = std::bit_cast<uint16_t>(static_cast<_Float16>(value));
    ASSERT_EQ(to_float16(value).bits, expected) << "value " << value << ", seed " << seed;
  }
}

TEST(Float16, RoundsHalvesToEvenInTheSubnormalRange) {
  EXPECT_EQ(to_float16(0x1p-25f).bits, 0);           // half of the smallest subnormal: to even, zero
  EXPECT_EQ(to_float16(0x1.000002p-25f).bits, 1);    // a little more
  EXPECT_EQ(to_float16(0x1.8p-24f).bits, 2);         // between 1 and 2: to even
  EXPECT_EQ(to_float16(-0x1p-26f).bits, 0x8000);
  EXPECT_EQ(to_float16(65519.0f).bits, 0x7bff);      // the largest finite
  EXPECT_EQ(to_float16(65520.0f).bits, 0x7c00);      // infinity
}

TEST(BFloat16, RoundsHalvesToEven) {
  EXPECT_EQ(to_bfloat16(std::bit_cast<float>(0x3f808000u)).bits, 0x3f80);
  EXPECT_EQ(to_bfloat16(std::bit_cast<float>(0x3f818000u)).bits, 0x3f82);
  EXPECT_EQ(to_bfloat16(std::bit_cast<float>(0x3f808001u)).bits, 0x3f81);
  EXPECT_EQ(to_bfloat16(INFINITY).bits, 0x7f80);
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(NAN))));
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(BFloat16, EveryBitPatternSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const BFloat16 value{static_cast<uint16_t>(bits)};
    if (std::isnan(to_float(value))) continue;
    ASSERT_EQ(to_bfloat16(to_float(value)).bits, bits);
  }
}

}  // namespace
}  // namespace qat
