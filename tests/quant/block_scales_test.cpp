// Scales of Q4_0 blocks: the search against the scalar rule and against all scales there are, gradients against the
// scalar rules of LSQ.
#include "quant/block_scales.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "quant/block_codec.h"
#include "quant/scalar_codec.h"
#include "quant/weight_rows.h"
#include "support/fresh_seed.h"

namespace qat {
namespace {

using test::RowKind;
using testing::fresh_seed;

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

Float16 searched(const std::vector<float>& block) {
  Float16 scale{};
  search_block_scales(test::to_bfloat16(block), {&scale, 1});
  return scale;
}

double squared_error(const std::vector<float>& block, Float16 scale) {
  const float inverse = grid::inverse_scale(to_float(scale));
  double error = 0;
  for (const float value : block) {
    error += std::pow(static_cast<double>(grid::q4_0_value(grid::q4_0_code(value, inverse), scale)) - value, 2);
  }
  return error;
}

// A block of BF16 numbers.
std::vector<float> draw_block(RowKind kind, SplitMix64& random) {
  return test::widen(test::to_bfloat16(test::draw_row(kind, 32, random)));
}

TEST(RuleBlockScales, AreThoseThatTheEncoderStores) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  for (const RowKind kind : test::kRowKinds) {
    const auto values = test::to_bfloat16(test::draw_row(kind, 32 * 40, random));
    std::vector<Float16> scales(40);
    rule_block_scales(values, scales);
    std::vector<std::byte> blocks(18 * scales.size());
    encode_blocks(Scheme::Q4_0, values, {}, blocks);
    for (size_t i = 0; i < scales.size(); ++i) {
      Float16 stored;
      std::memcpy(&stored, blocks.data() + 18 * i, sizeof(stored));
      ASSERT_EQ(scales[i], stored) << "row kind " << static_cast<int>(kind) << ", block " << i;
    }
  }
}

TEST(BlockScaleSearch, VectorKernelEqualsTheScalarRule) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  for_each_target([&] {
    SplitMix64 random(seed);
    for (const RowKind kind : test::kRowKinds) {
      SCOPED_TRACE("row kind " + std::to_string(static_cast<int>(kind)));
      for (int repeat = 0; repeat < 100; ++repeat) {
        std::vector<BFloat16> values;
        std::vector<Float16> wanted, found(3);
        for (size_t i = 0; i < found.size(); ++i) {
          const auto block = draw_block(kind, random);
          wanted.push_back(scalar::q4_0_searched_scale(scalar::Block(block)));
          for (const float value : block) values.push_back(to_bfloat16(value));
        }
        search_block_scales(values, found);
        ASSERT_EQ(found, wanted);
      }
    }
  });
}

TEST(BlockScaleSearch, IsNeverWorseThanTheRuleAndAlwaysFinite) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  for (const RowKind kind : test::kRowKinds) {
    for (int repeat = 0; repeat < 200; ++repeat) {
      const auto block = draw_block(kind, random);
      const Float16 scale = searched(block);
      ASSERT_TRUE(std::isfinite(to_float(scale)));
      const Float16 rule = to_float16(grid::q4_0_scale(scalar::Block(block)));
      if (!std::isfinite(to_float(rule))) continue;
      // The kernel sums in fp32.
      ASSERT_LE(squared_error(block, scale), squared_error(block, rule) * (1 + 1e-5)) << static_cast<int>(kind);
    }
  }
}

// Every fp16 from half to twice the rule's scale, of both signs.
double least_error(const std::vector<float>& block) {
  const float rule = std::fabs(grid::q4_0_scale(scalar::Block(block)));
  double least = std::numeric_limits<double>::infinity();
  for (uint16_t bits = to_float16(rule / 2).bits; bits <= to_float16(rule * 2).bits; ++bits) {
    least =
        std::min({least, squared_error(block, {bits}), squared_error(block, {static_cast<uint16_t>(bits | 0x8000)})});
  }
  return least;
}

// The measured figures of qat_methods.md 3.1: 0.0858 by the rule, 0.0814 by search.
TEST(BlockScaleSearch, ComesCloseToTheBestScaleThereIs) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  double found = 0, best = 0, by_rule = 0, signal = 0;
  for (int repeat = 0; repeat < 1500; ++repeat) {
    const auto block = draw_block(RowKind::Gaussian, random);
    found += squared_error(block, searched(block));
    best += least_error(block);
    by_rule += squared_error(block, to_float16(grid::q4_0_scale(scalar::Block(block))));
    for (const float value : block) signal += static_cast<double>(value) * value;
  }
  EXPECT_LT(found, 1.01 * best);
  // Five standard errors of 1,500 blocks.
  EXPECT_NEAR(std::sqrt(by_rule / signal), 0.0858, 0.003);
  EXPECT_NEAR(std::sqrt(found / signal), 0.0814, 0.003);
}

TEST(BlockScaleSearch, PutsTheExtremumOnEitherSide) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  int other_side = 0;
  for (int repeat = 0; repeat < 4000; ++repeat) {
    const auto block = draw_block(RowKind::Gaussian, random);
    const bool is_negative = grid::q4_0_scale(scalar::Block(block)) < 0;
    other_side += (to_float(searched(block)) < 0) != is_negative ? 1 : 0;
  }
  // About one block in a hundred is better off with its extremum at +7.
  EXPECT_GT(other_side, 10);
  EXPECT_LT(other_side, 400);
}

TEST(BlockScaleSearch, ZerosKeepTheRulesScaleAndTiesGoToIt) {
  EXPECT_EQ(searched(std::vector<float>(32, 0.0F)), to_float16(-0.0F));
  // Values on the rule's codes: no scale can be better, and the rule's comes first.
  std::vector<float> block(32);
  for (size_t i = 0; i < block.size(); ++i) block[i] = (static_cast<float>(i % 16) - 8.0F) * 0.25F;
  EXPECT_EQ(to_float(searched(block)), 0.25F);
}

TEST(RoundedBlockScales, AreTheNearestFiniteFp16ButZero) {
  const std::vector<float> scales{0.1F, -0.1F, 1e-9F, -1e-9F, 1e9F, -1e9F, 65504.0F, 3e-5F};
  std::vector<Float16> rounded(scales.size());
  round_block_scales(scales, rounded);
  const std::vector<Float16> wanted{to_float16(0.1F), to_float16(-0.1F), {0x0001}, {0x8001},
                                    {0x7bff},         {0xfbff},          {0x7bff}, to_float16(3e-5F)};
  EXPECT_EQ(rounded, wanted);
}

template <class Value>
void expect_gradients_of_the_scalar_rule(SplitMix64& random, RowKind kind) {
  const size_t blocks = 3;
  std::vector<BFloat16> values;
  std::vector<Float16> scales;
  for (size_t i = 0; i < blocks; ++i) {
    const auto block = draw_block(kind, random);
    for (const float value : block) values.push_back(to_bfloat16(value));
    const float factor = (random.below(2) == 0 ? 1.0F : -1.0F) * (0.5F + static_cast<float>(random.uniform()));
    std::vector<float> scale{grid::q4_0_scale(scalar::Block(block)) * factor};
    scales.emplace_back();
    round_block_scales(scale, {&scales.back(), 1});
  }
  std::vector<Value> gradient(values.size()), masked(values.size());
  const auto to_value = [](float value) {
    if constexpr (std::is_same_v<Value, float>)
      return value;
    else
      return to_bfloat16(value);
  };
  const auto to_wide = [](Value value) {
    if constexpr (std::is_same_v<Value, float>)
      return value;
    else
      return to_float(value);
  };
  for (Value& value : gradient) value = to_value(test::gaussian(random));
  std::vector<float> of_scales(blocks);
  block_scale_gradients(values, gradient, scales, masked, of_scales);
  for (size_t block = 0; block < blocks; ++block) {
    const float inverse = grid::inverse_scale(to_float(scales[block]));
    double sum = 0, size = 0;
    for (size_t i = block * 32; i < (block + 1) * 32; ++i) {
      const float value = to_float(values[i]), incoming = to_wide(gradient[i]);
      const bool inside = grid::q4_0_inside_range(value, inverse);
      const float code = static_cast<float>(grid::q4_0_code(value, inverse)) - 8.0F;
      const double part = static_cast<double>(incoming) * (inside ? code - value * inverse : code);
      sum += part;
      size += std::fabs(part);
      ASSERT_EQ(to_wide(masked[i]), inside ? incoming : 0.0F);
    }
    ASSERT_NEAR(of_scales[block], sum, 1e-5 * size);
  }
}

TEST(BlockScaleGradients, AreThoseOfTheScalarRules) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  for_each_target([&] {
    SplitMix64 random(seed);
    for (const RowKind kind : {RowKind::Gaussian, RowKind::Outliers, RowKind::Ties, RowKind::Bfloat16Ties}) {
      for (int repeat = 0; repeat < 50; ++repeat) {
        expect_gradients_of_the_scalar_rule<float>(random, kind);
        expect_gradients_of_the_scalar_rule<BFloat16>(random, kind);
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  });
}

// By hand: scale 1, so that steps are the values themselves.
TEST(BlockScaleGradients, OfABlockByHand) {
  std::vector<float> block(32, 0.0F);
  block[0] = 2.25F;  // inside: 2 - 2.25
  block[1] = -9.0F;  // outside: -8
  block[2] = 7.25F;  // outside, though it still rounds to the last code: 7
  block[3] = -8.0F;  // the end itself is inside: 0
  block[4] = -2.5F;  // halves go up: -2 + 2.5
  const std::vector<float> gradient(32, 1.0F);
  std::vector<float> masked(32), of_scales(1);
  const Float16 one = to_float16(1.0F);
  block_scale_gradients(test::to_bfloat16(block), gradient, {&one, 1}, masked, of_scales);
  EXPECT_EQ(of_scales[0], -0.25F - 8.0F + 7.0F + 0.0F + 0.5F);
  std::vector<float> wanted(32, 1.0F);
  wanted[1] = wanted[2] = 0.0F;
  EXPECT_EQ(masked, wanted);
}

}  // namespace
}  // namespace qat
