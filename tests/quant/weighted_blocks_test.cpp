// Weighted search of Q4_0 blocks: what must hold for any importance. Its bytes are compared with a transcription in
// numpy by tests/interop/codec_against_python.py.
#include "quant/weighted_blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/random.h"
#include "quant/block_codec.h"
#include "quant/block_scales.h"
#include "quant/grid.h"
#include "support/fresh_seed.h"

namespace qat {
namespace {

struct Row {
  std::vector<float> values;
  std::vector<float> importance;
};

Row random_row(SplitMix64& random, size_t width) {
  Row row;
  for (size_t i = 0; i < width; ++i) {
    row.values.push_back(static_cast<float>(0.1 * (2 * random.uniform() - 1)));
    row.importance.push_back(static_cast<float>(random.uniform()));
  }
  return row;
}

struct Result {
  std::vector<Float16> scales;
  std::vector<float> values;
};

Result quantized(const Row& row) {
  Result result{std::vector<Float16>(row.values.size() / 32), std::vector<float>(row.values.size())};
  quantize_row_by_importance(row.values, row.importance, result.scales, result.values);
  return result;
}

double weighted_error(const Row& row, std::span<const float> found) {
  double mean = 0;
  for (const float value : row.values) mean += value * value / static_cast<double>(row.values.size());
  double sum = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double difference = found[i] - row.values[i];
    sum += row.importance[i] * std::sqrt(mean + row.values[i] * row.values[i]) * difference * difference;
  }
  return sum;
}

class WeightedBlocks : public ::testing::Test {
 protected:
  uint64_t seed_ = testing::fresh_seed();
  ::testing::ScopedTrace trace_{__FILE__, __LINE__, "seed " + std::to_string(seed_)};
  SplitMix64 random_{seed_};
};

TEST_F(WeightedBlocks, LieOnTheGridOfTheirScalesAndHaveLessWeightedErrorThanByTheRule) {
  double error = 0, error_by_rule = 0;
  for (int round = 0; round < 200; ++round) {
    const Row row = random_row(random_, 96);
    const Result result = quantized(row);
    // What a checkpoint keeps of them, BF16 numbers and scales, encodes to the same values again.
    std::vector<BFloat16> masters;
    for (const float value : result.values) masters.push_back(to_bfloat16(value));
    std::vector<std::byte> blocks(3 * 18);
    std::vector<float> decoded(96);
    encode_blocks(Scheme::Q4_0, masters, result.scales, blocks);
    decode_blocks(Scheme::Q4_0, blocks, decoded);
    ASSERT_EQ(decoded, result.values);

    std::vector<float> by_rule(96);
    encode_blocks(Scheme::Q4_0, row.values, {}, blocks);
    decode_blocks(Scheme::Q4_0, blocks, by_rule);
    error += weighted_error(row, result.values);
    error_by_rule += weighted_error(row, by_rule);
  }
  EXPECT_LT(error, 0.9 * error_by_rule);
}

TEST_F(WeightedBlocks, TheValueThatMattersAloneIsMetBest) {
  Row row = random_row(random_, 32);
  std::fill(row.importance.begin(), row.importance.end(), 0.0f);
  row.values[5] = 0.06f;  // more than half a step under every scale that is tried
  row.importance[5] = 1;
  const Result result = quantized(row);
  EXPECT_NEAR(result.values[5], row.values[5], std::fabs(row.values[5]) * 0x1p-10f + 1e-7f);
}

TEST(WeightedBlocksOfZeros, AndWithoutImportanceAreZero) {
  const Row zeros{std::vector<float>(64, 0.0f), std::vector<float>(64, 1.0f)};
  EXPECT_EQ(quantized(zeros).values, zeros.values);
  Row ignored{std::vector<float>(32, 0.5f), std::vector<float>(32, 0.0f)};
  EXPECT_EQ(to_float(quantized(ignored).scales[0]), 0.0f);
}

TEST_F(WeightedBlocks, NearestValuesAreTheGridsUnderEachScale) {
  const std::vector<float> values{0.26f, -9.0f, 0.25f, 1.0f, 5.0f};
  const std::vector<Float16> scales{to_float16(0.5f), to_float16(1.0f), to_float16(0.5f), to_float16(0.0f),
                                    to_float16(-0.5f)};
  std::vector<float> results(values.size());
  nearest_q4_0_values(values, scales, results);
  // Halves go up, ends are clipped, nothing lies on a grid without a scale but 0.
  EXPECT_EQ(results, (std::vector<float>{0.5f, -8.0f, 0.5f, 0.0f, 4.0f}));
}

// A block whose scales and offsets both have either sign.
struct OffsetBlocks {
  explicit OffsetBlocks(SplitMix64& random) {
    for (size_t block = 0; block < 6; ++block) {
      scales.push_back(to_float16(static_cast<float>((block % 2 == 0 ? 0.02 : -0.02) * (0.5 + random.uniform()))));
      for (size_t i = 0; i < 32; ++i) {
        values.push_back(to_float(to_bfloat16(static_cast<float>(0.2 * (2 * random.uniform() - 1)))));
        offsets.push_back(static_cast<float>(random.uniform() - 0.5));
        gradient.push_back(static_cast<float>(2 * random.uniform() - 1));
        scale_of.push_back(scales.back());
      }
    }
  }

  std::vector<float> values, offsets, gradient;
  std::vector<Float16> scales, scale_of;  // by block, by value
};

TEST_F(WeightedBlocks, OffsetsMoveTheRoundingBySteps) {
  const OffsetBlocks blocks(random_);
  std::vector<float> results(blocks.values.size()), nearest(blocks.values.size());
  nearest_q4_0_values(blocks.values, blocks.scale_of, nearest);
  offset_q4_0_values(blocks.values, std::vector<float>(blocks.values.size(), 0.0f), blocks.scales, results);
  EXPECT_EQ(results, nearest);

  offset_q4_0_values(blocks.values, blocks.offsets, blocks.scales, results);
  size_t moved = 0;
  for (size_t i = 0; i < results.size(); ++i) {
    const float steps = (results[i] - nearest[i]) / to_float(blocks.scale_of[i]);
    ASSERT_TRUE(steps == 0 || steps == std::copysign(1.0f, blocks.offsets[i])) << i << ": " << steps;
    moved += steps != 0;
  }
  EXPECT_GT(moved, results.size() / 10);
}

TEST_F(WeightedBlocks, GradientsWithoutOffsetsAreThoseOfLearnedScalesAndWithThemStayInsideOfTheEnds) {
  const OffsetBlocks blocks(random_);
  const size_t count = blocks.values.size();
  std::vector<float> of_offsets(count), of_scales(blocks.scales.size()), masked(count), of_learned(of_scales.size());
  offset_q4_0_gradients(blocks.values, std::vector<float>(count, 0.0f), blocks.scales, blocks.gradient, of_offsets,
                        of_scales);
  std::vector<BFloat16> masters;
  for (const float value : blocks.values) masters.push_back(to_bfloat16(value));
  block_scale_gradients(masters, std::span<const float>(blocks.gradient), blocks.scales, std::span<float>(masked),
                        of_learned);
  for (size_t i = 0; i < count; ++i) ASSERT_EQ(of_offsets[i], masked[i] * to_float(blocks.scale_of[i])) << i;
  for (size_t i = 0; i < of_scales.size(); ++i) EXPECT_NEAR(of_scales[i], of_learned[i], 1e-4) << i;

  // 0.52 + 0.25 of a step is inside and rounds to 1, 7.1 is inside only with the offset of -0.25, and 9 is outside.
  std::vector<float> values(32, 0.0f), offsets(32, 0.0f), gradient(32, 0.0f);
  values[0] = 0.26f, offsets[0] = 0.25f, gradient[0] = 2;
  values[1] = 3.55f, offsets[1] = -0.25f, gradient[1] = 4;
  values[2] = 4.5f, offsets[2] = -0.5f, gradient[2] = 8;
  std::vector<float> of_offset(32), of_scale(1);
  offset_q4_0_gradients(values, offsets, std::vector<Float16>{to_float16(0.5f)}, gradient, of_offset, of_scale);
  EXPECT_EQ(of_offset[0], 1);
  EXPECT_EQ(of_offset[1], 2);
  EXPECT_EQ(of_offset[2], 0);
  EXPECT_NEAR(of_scale[0], 2 * (1 - 0.52) + 4 * (7 - 7.1) + 8 * 7, 1e-5);
}

}  // namespace
}  // namespace qat
