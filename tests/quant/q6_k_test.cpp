// Q6_K: the vector kernel, whose lanes are groups, against the steps of gguf_q4_0.md 2.7 written one value after the
// other.
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <string>

#include "quant/block_codec.h"
#include "quant/q6_k_block.h"
#include "quant/quantized_digest.h"
#include "quant/weight_rows.h"

namespace qat {
namespace {

using test::RowKind;

struct Group {
  float scale = 0.0f;
  uint8_t codes[16] = {};
};

int nearest(float value, int low, int high) {
  const float rounded = std::nearbyint(value);
  return static_cast<int>(std::fmin(std::fmax(rounded, static_cast<float>(low)), static_cast<float>(high)));
}

Group search_group(const float* x) {
  Group group;
  float extremum = 0.0f;
  for (int i = 0; i < 16; ++i) {
    if (std::fabs(x[i]) > std::fabs(extremum)) extremum = x[i];
  }
  if (std::fabs(extremum) < 1e-15f) return group;
  float best = 0.0f;
  const auto attempt = [&](float inverse, bool first) {
    float along = 0.0f;
    float square = 0.0f;
    int codes[16];
    for (int i = 0; i < 16; ++i) {
      codes[i] = nearest(inverse * x[i], -32, 31);
      const float weight = x[i] * x[i];
      along += weight * x[i] * static_cast<float>(codes[i]);
      square += weight * static_cast<float>(codes[i]) * static_cast<float>(codes[i]);
    }
    if (!first && !(square > 0.0f && along * along > best * square)) return;
    group.scale = square != 0.0f ? along / square : 0.0f;
    best = group.scale * along;
    for (int i = 0; i < 16; ++i) group.codes[i] = static_cast<uint8_t>(codes[i] + 32);
  };
  attempt(-32.0f / extremum, true);
  for (int k = -9; k <= 9; ++k) {
    if (k != 0) attempt(-(32.0f + 0.1f * static_cast<float>(k)) / extremum, false);
  }
  return group;
}

BlockQ6_K encode_one(const float* x) {
  BlockQ6_K block{};
  Group groups[16];
  float largest = 0.0f;
  for (int g = 0; g < 16; ++g) {
    groups[g] = search_group(x + 16 * g);
    if (std::fabs(groups[g].scale) > std::fabs(largest)) largest = groups[g].scale;
  }
  if (std::fabs(largest) < 1e-15f) return block;
  const float inverse = -128.0f / largest;
  block.scale = to_float16(1.0f / inverse);
  uint8_t codes[256];
  for (int g = 0; g < 16; ++g) {
    block.sub_scales[g] = static_cast<int8_t>(nearest(inverse * groups[g].scale, -128, 127));
    const float step = to_float(block.scale) * static_cast<float>(block.sub_scales[g]);
    for (int i = 0; i < 16; ++i) {
      const int j = 16 * g + i;
      codes[j] = step == 0.0f ? groups[g].codes[i] : static_cast<uint8_t>(nearest(x[j] / step, -32, 31) + 32);
    }
  }
  pack_q6_k_codes(codes, block);
  return block;
}

TEST(Q6_K, VectorKernelEqualsTheStepsOneByOne) {
  const auto seed = static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  SCOPED_TRACE("seed " + std::to_string(seed));
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    SplitMix64 random(seed);
    for (const RowKind kind : test::kRowKinds) {
      if (kind == RowKind::Huge) continue;  // squares beyond fp32; exporters refuse such weights
      for (int repeat = 0; repeat < 60; ++repeat) {
        const auto row = test::draw_row(kind, 256, random);
        const BlockQ6_K wanted = encode_one(row.data());
        std::array<std::byte, 210> bytes;
        encode_blocks(Scheme::Q6_K, std::span<const float>(row), {}, bytes);
        ASSERT_EQ(std::memcmp(bytes.data(), &wanted, 210), 0) << "row kind " << static_cast<int>(kind);
      }
    }
    hwy::SetSupportedTargetsForTest(0);
  }
}

TEST(Q6_K, DecodesStepTimesCode) {
  BlockQ6_K block{};
  uint8_t codes[256];
  for (int i = 0; i < 256; ++i) codes[i] = static_cast<uint8_t>((i * 7) % 64);
  pack_q6_k_codes(codes, block);
  block.scale = to_float16(0.5f);
  for (int g = 0; g < 16; ++g) block.sub_scales[g] = static_cast<int8_t>(g * 9 - 70);
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    std::vector<float> values(256);
    decode_blocks(Scheme::Q6_K, std::as_bytes(std::span(&block, 1)), values);
    for (int i = 0; i < 256; ++i) {
      const int code = (i * 7) % 64 - 32;
      ASSERT_EQ(values[static_cast<size_t>(i)], 0.5f * static_cast<float>(block.sub_scales[i / 16] * code)) << i;
    }
    hwy::SetSupportedTargetsForTest(0);
  }
}

TEST(Q6_K, UnpackedCodesAreThePackedOnes) {
  SplitMix64 random(7);
  uint8_t codes[256];
  for (uint8_t& code : codes) code = static_cast<uint8_t>(random.below(64));
  BlockQ6_K block{};
  pack_q6_k_codes(codes, block);
  std::vector<int8_t> unpacked(256);
  unpack_codes(Scheme::Q6_K, std::as_bytes(std::span(&block, 1)), unpacked);
  for (size_t i = 0; i < 256; ++i) ASSERT_EQ(unpacked[i], codes[i] - 32);
}

TEST(Q6_K, ZeroBlockIsAllZeroBytes) {
  const std::vector<float> values(256, 1e-16f);
  std::array<std::byte, 210> bytes;
  bytes.fill(std::byte{1});
  encode_blocks(Scheme::Q6_K, std::span<const float>(values), {}, bytes);
  for (const std::byte byte : bytes) EXPECT_EQ(byte, std::byte{0});
}

}  // namespace
}  // namespace qat
