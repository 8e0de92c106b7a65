#include "quant/quantized_digest.h"

#include <gtest/gtest.h>

#include "quant/block_codec.h"
#include "quant/weight_rows.h"

namespace qat {
namespace {

std::string sha(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.finish();
}

std::vector<std::byte> blocks_of(Scheme id, size_t values) {
  SplitMix64 random(11);
  const auto row = test::draw_row(test::RowKind::Gaussian, values, random);
  std::vector<std::byte> blocks(static_cast<size_t>(scheme(id).row_bytes(static_cast<int64_t>(values))));
  encode_blocks(id, std::span<const float>(row), {}, blocks);
  return blocks;
}

TEST(QuantizedDigest, HashesSignedCodesAndStoredScalesOfQ4_0) {
  const auto blocks = blocks_of(Scheme::Q4_0, 32 * 700);
  std::vector<std::byte> codes;
  std::vector<std::byte> scales;
  for (size_t block = 0; block < 700; ++block) {
    const std::byte* bytes = blocks.data() + 18 * block;
    scales.insert(scales.end(), bytes, bytes + 2);
    for (int half = 0; half < 2; ++half) {
      for (size_t i = 0; i < 16; ++i) {
        const int code = half == 0 ? std::to_integer<int>(bytes[2 + i]) & 15 : std::to_integer<int>(bytes[2 + i]) >> 4;
        codes.push_back(static_cast<std::byte>(code - 8));
      }
    }
  }
  QuantizedDigest digest(Scheme::Q4_0);
  digest.update(blocks);
  const auto result = digest.finish();
  EXPECT_EQ(result.codes, sha(codes));
  EXPECT_EQ(result.scales, sha(scales));
}

TEST(QuantizedDigest, HashesScaleAndSubScalesOfQ6_K) {
  const auto blocks = blocks_of(Scheme::Q6_K, 256 * 70);
  std::vector<std::byte> scales;
  for (size_t block = 0; block < 70; ++block) {
    const std::byte* bytes = blocks.data() + 210 * block;
    scales.insert(scales.end(), bytes + 208, bytes + 210);
    scales.insert(scales.end(), bytes + 192, bytes + 208);
  }
  QuantizedDigest digest(Scheme::Q6_K);
  digest.update(blocks);
  EXPECT_EQ(digest.finish().scales, sha(scales));
}

TEST(QuantizedDigest, DoesNotDependOnThePieces) {
  for (const Scheme id : {Scheme::Q4_0, Scheme::Q8_0, Scheme::Q6_K, Scheme::BF16}) {
    const auto blocks = blocks_of(id, 256 * 100);
    const auto block_bytes = static_cast<size_t>(scheme(id).block_bytes);
    QuantizedDigest whole(id);
    whole.update(blocks);
    QuantizedDigest pieces(id);
    for (size_t at = 0; at < blocks.size();) {
      const size_t count = std::min(blocks.size() - at, block_bytes * (1 + at % 37));
      pieces.update(std::span(blocks).subspan(at, count));
      at += count;
    }
    EXPECT_EQ(whole.finish(), pieces.finish()) << scheme(id).name;
  }
}

TEST(QuantizedDigest, OneCodeChangesTheCodesAndOneScaleTheScales) {
  auto blocks = blocks_of(Scheme::Q4_0, 32 * 40);
  const auto digest_of = [](const std::vector<std::byte>& bytes) {
    QuantizedDigest digest(Scheme::Q4_0);
    digest.update(bytes);
    return digest.finish();
  };
  const auto before = digest_of(blocks);
  blocks[18 * 7 + 9] ^= std::byte{0x10};
  const auto other_code = digest_of(blocks);
  EXPECT_NE(other_code.codes, before.codes);
  EXPECT_EQ(other_code.scales, before.scales);
  blocks[18 * 7 + 9] ^= std::byte{0x10};
  blocks[18 * 7] ^= std::byte{1};
  const auto other_scale = digest_of(blocks);
  EXPECT_EQ(other_scale.codes, before.codes);
  EXPECT_NE(other_scale.scales, before.scales);
}

TEST(QuantizedDigest, PlainTypesHashTheirBytes) {
  const auto blocks = blocks_of(Scheme::BF16, 96);
  QuantizedDigest digest(Scheme::BF16);
  digest.update(blocks);
  const auto result = digest.finish();
  EXPECT_EQ(result.codes, sha(blocks));
  EXPECT_EQ(result.scales, "");
}

// By hand: codes as signed bytes, scales as little-endian floats; where the rows are cut does not matter.
TEST(RowDigest, HashesCodesAndScalesApart) {
  const std::vector<int8_t> codes{-8, 7, 0, -1};
  const std::vector<float> scales{1.0f, -2.0f};
  const std::vector<std::byte> code_bytes{std::byte{0xf8}, std::byte{7}, std::byte{0}, std::byte{0xff}};
  const std::vector<std::byte> scale_bytes{std::byte{0}, std::byte{0}, std::byte{0x80}, std::byte{0x3f},
                                           std::byte{0}, std::byte{0}, std::byte{0},    std::byte{0xc0}};
  RowDigest whole;
  whole.update(codes, scales);
  const auto result = whole.finish();
  EXPECT_EQ(result.codes, sha(code_bytes));
  EXPECT_EQ(result.scales, sha(scale_bytes));
  RowDigest pieces;
  pieces.update(std::span(codes).first(2), std::span(scales).first(1));
  pieces.update(std::span(codes).last(2), std::span(scales).last(1));
  EXPECT_EQ(pieces.finish(), result);
}

}  // namespace
}  // namespace qat
