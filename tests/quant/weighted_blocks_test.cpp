// Weighted search of Q4_0 blocks: what must hold for any importance. Its bytes are compared with a transcription in
// numpy by tests/interop/codec_against_python.py.
#include "quant/weighted_blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/random.h"
#include "quant/block_codec.h"
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

}  // namespace
}  // namespace qat
