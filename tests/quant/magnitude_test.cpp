#include "quant/magnitude.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <limits>

#include "quant/weight_rows.h"

namespace qat {
namespace {

TEST(LargestMagnitude, IsFoundAtEveryPlaceOfEveryLength) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    for (size_t length = 1; length < 100; ++length) {
      for (size_t place = 0; place < length; ++place) {
        std::vector<float> values(length, 0.5f);
        values[place] = -2.0f;
        ASSERT_EQ(largest_magnitude(std::span<const float>(values)), 2.0f);
        const auto master = test::to_bfloat16(values);
        ASSERT_EQ(largest_magnitude(std::span<const BFloat16>(master)), 2.0f);
      }
    }
    hwy::SetSupportedTargetsForTest(0);
  }
}

TEST(LargestMagnitude, NanBeatsInfinityBeatsNumbers) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> values(77, 1.0f);
  values[70] = -kInfinity;
  EXPECT_EQ(largest_magnitude(std::span<const float>(values)), kInfinity);
  EXPECT_EQ(largest_magnitude(std::span<const BFloat16>(test::to_bfloat16(values))), kInfinity);
  values[3] = -std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(largest_magnitude(std::span<const float>(values))));
  EXPECT_TRUE(std::isnan(largest_magnitude(std::span<const BFloat16>(test::to_bfloat16(values)))));
  EXPECT_EQ(largest_magnitude(std::span<const float>()), 0.0f);
}

}  // namespace
}  // namespace qat
