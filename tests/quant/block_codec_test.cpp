// Laws of the block codec: vector kernels equal the scalar rules bit for bit, and encoding, decoding and fake
// quantization agree with each other.
#include "quant/block_codec.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <bit>
#include <cstring>
#include <string>

#include "quant/scalar_codec.h"
#include "quant/weight_rows.h"
#include "support/fresh_seed.h"

namespace qat {
namespace {

using test::RowKind;
using testing::fresh_seed;

std::vector<std::byte> encode(Scheme id, const auto& values, const std::vector<Float16>& stored = {}) {
  const QuantScheme& row = scheme(id);
  std::vector<std::byte> blocks(static_cast<size_t>(row.row_bytes(static_cast<int64_t>(values.size()))));
  encode_blocks(id, std::span(values), stored, blocks);
  return blocks;
}

std::vector<float> decode(Scheme id, const std::vector<std::byte>& blocks) {
  const QuantScheme& row = scheme(id);
  std::vector<float> values(blocks.size() / static_cast<size_t>(row.block_bytes) * static_cast<size_t>(row.block_size));
  decode_blocks(id, blocks, values);
  return values;
}

std::vector<uint32_t> bits(const std::vector<float>& values) {
  std::vector<uint32_t> result;
  for (const float value : values) result.push_back(std::bit_cast<uint32_t>(value));
  return result;
}

// The same by the scalar rules, block by block.
struct ScalarResult {
  std::vector<std::byte> blocks;
  std::vector<float> decoded;
  std::vector<float> fake_quantized;
};

ScalarResult by_scalar_rules(Scheme id, const std::vector<float>& values, const std::vector<Float16>& stored) {
  const auto block_bytes = static_cast<size_t>(scheme(id).block_bytes);
  const size_t blocks = values.size() / 32;
  ScalarResult result{std::vector<std::byte>(blocks * block_bytes), std::vector<float>(values.size()),
                      std::vector<float>(values.size())};
  for (size_t i = 0; i < blocks; ++i) {
    const scalar::Block block(values.data() + i * 32, 32);
    const scalar::DecodedBlock decoded(result.decoded.data() + i * 32, 32);
    const scalar::DecodedBlock fake(result.fake_quantized.data() + i * 32, 32);
    auto* bytes = reinterpret_cast<uint8_t*>(result.blocks.data() + i * block_bytes);
    if (id == Scheme::Q4_0) {
      const Float16* scale = stored.empty() ? nullptr : &stored[i];
      scalar::encode_q4_0(block, scale, bytes);
      scalar::decode_q4_0(bytes, decoded);
      scalar::fake_quantize_q4_0(block, scale, fake);
    } else {
      scalar::encode_q8_0(block, bytes);
      scalar::decode_q8_0(bytes, decoded);
      scalar::fake_quantize_q8_0(block, fake);
    }
  }
  return result;
}

void expect_equals_scalar_rules(Scheme id, const std::vector<float>& values, const std::vector<Float16>& stored) {
  const ScalarResult wanted = by_scalar_rules(id, values, stored);
  ASSERT_EQ(encode(id, values, stored), wanted.blocks);
  ASSERT_EQ(bits(decode(id, wanted.blocks)), bits(wanted.decoded));

  const std::vector<BFloat16> master = test::to_bfloat16(values);
  const ScalarResult from_master = by_scalar_rules(id, test::widen(master), stored);
  ASSERT_EQ(encode(id, master, stored), from_master.blocks);
  std::vector<float> fake(values.size());
  fake_quantize_blocks(id, master, stored, std::span(fake));
  ASSERT_EQ(bits(fake), bits(from_master.fake_quantized));
  std::vector<BFloat16> fake_bfloat16(values.size());
  fake_quantize_blocks(id, master, stored, std::span(fake_bfloat16));
  ASSERT_EQ(bits(test::widen(fake_bfloat16)), bits(from_master.fake_quantized));

  // By way of the blocks.
  decode_forward_values(id, from_master.blocks, std::span(fake));
  ASSERT_EQ(bits(fake), bits(from_master.fake_quantized));
  decode_forward_values(id, from_master.blocks, std::span(fake_bfloat16));
  ASSERT_EQ(bits(test::widen(fake_bfloat16)), bits(from_master.fake_quantized));
}

// Scales near those of the rule, and some that are far off, zero, negative or subnormal.
std::vector<Float16> perturbed_scales(const std::vector<float>& values, SplitMix64& random) {
  std::vector<Float16> scales;
  for (size_t i = 0; i < values.size(); i += 32) {
    const float rule = grid::q4_0_scale(scalar::Block(values.data() + i, 32));
    const float factor = random.below(8) == 0 ? -0.01f : 0.8f + 0.4f * static_cast<float>(random.uniform());
    const Float16 scale = random.below(16) == 0 ? Float16{0} : to_float16(rule * factor);
    scales.push_back((scale.bits & 0x7c00u) == 0x7c00u ? Float16{0x7bff} : scale);
  }
  return scales;
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

class BlockCodec : public ::testing::TestWithParam<Scheme> {};

TEST_P(BlockCodec, VectorKernelsEqualTheScalarRules) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  for_each_target([&] {
    SplitMix64 random(seed);
    for (const RowKind kind : test::kRowKinds) {
      SCOPED_TRACE("row kind " + std::to_string(static_cast<int>(kind)));
      for (size_t blocks = 1; blocks <= 5; ++blocks) {
        for (int repeat = 0; repeat < 60; ++repeat) {
          const auto values = test::draw_row(kind, blocks * 32, random);
          expect_equals_scalar_rules(GetParam(), values, {});
          if (scheme(GetParam()).allows_stored_scales) {
            expect_equals_scalar_rules(GetParam(), values, perturbed_scales(values, random));
          }
          if (::testing::Test::HasFatalFailure()) return;
        }
      }
    }
  });
}

TEST_P(BlockCodec, FakeQuantizationIsDecodedEncoding) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  const auto size = static_cast<size_t>(3 * scheme(GetParam()).block_size);
  for (const RowKind kind : test::kRowKinds) {
    if (kind == RowKind::Huge) continue;  // scales beyond fp16 decode to infinities
    const auto master = test::to_bfloat16(test::draw_row(kind, size, random));
    auto decoded = decode(GetParam(), encode(GetParam(), master));
    for (float& value : decoded) value = to_float(to_bfloat16(value));
    std::vector<float> fake(size);
    fake_quantize_blocks(GetParam(), master, {}, std::span(fake));
    ASSERT_EQ(bits(fake), bits(decoded)) << "row kind " << static_cast<int>(kind);
  }
}

TEST_P(BlockCodec, RowsDoNotInfluenceEachOther) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  const auto size = static_cast<size_t>(scheme(GetParam()).block_size);
  std::vector<float> all;
  std::vector<std::byte> wanted;
  for (const RowKind kind : test::kRowKinds) {
    const auto row = test::draw_row(kind, size, random);
    const auto blocks = encode(GetParam(), row);
    all.insert(all.end(), row.begin(), row.end());
    wanted.insert(wanted.end(), blocks.begin(), blocks.end());
  }
  EXPECT_EQ(encode(GetParam(), all), wanted);
}

INSTANTIATE_TEST_SUITE_P(Quantized, BlockCodec, ::testing::Values(Scheme::Q4_0, Scheme::Q8_0),
                         [](const auto& test) { return std::string(scheme(test.param).name); });

// Law 2: what was decoded encodes to the same codes and scales again, when the values reach the grid's end as they do
// under the rule.
TEST(BlockCodecLaws, DecodedQ4_0EncodesToTheSameBlocks) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  for (const RowKind kind :
       {RowKind::Gaussian, RowKind::Outliers, RowKind::Bfloat16Ties, RowKind::Ties, RowKind::Zero}) {
    const auto blocks = encode(Scheme::Q4_0, test::to_bfloat16(test::draw_row(kind, 32 * 50, random)));
    const auto decoded = decode(Scheme::Q4_0, blocks);
    ASSERT_EQ(bits(decode(Scheme::Q4_0, encode(Scheme::Q4_0, decoded))), bits(decoded));
  }
}

TEST(BlockCodecLaws, ExtremumIsTheFirstOnTies) {
  std::vector<float> values(32, 0.25f);
  values[5] = 1.0f;
  values[20] = -1.0f;
  EXPECT_EQ(decode(Scheme::Q4_0, encode(Scheme::Q4_0, values))[5], 1.0f);      // code 0 of a negative scale
  EXPECT_EQ(decode(Scheme::Q4_0, encode(Scheme::Q4_0, values))[20], -0.875f);  // saturates at code 15
  std::swap(values[5], values[20]);
  EXPECT_EQ(decode(Scheme::Q4_0, encode(Scheme::Q4_0, values))[5], -1.0f);
  EXPECT_EQ(decode(Scheme::Q4_0, encode(Scheme::Q4_0, values))[20], 0.875f);
}

TEST(BlockCodecLaws, HalvesGoUpInQ4_0AndAwayFromZeroInQ8_0) {
  std::vector<float> values(32, 0.0f);
  values[0] = -8.0f;  // scale 1
  values[1] = 2.5f;
  values[2] = -2.5f;
  const auto q4_0 = decode(Scheme::Q4_0, encode(Scheme::Q4_0, values));
  EXPECT_EQ(q4_0[1], 3.0f);
  EXPECT_EQ(q4_0[2], -2.0f);
  values[0] = 127.0f;
  const auto q8_0 = decode(Scheme::Q8_0, encode(Scheme::Q8_0, values));
  EXPECT_EQ(q8_0[1], 3.0f);
  EXPECT_EQ(q8_0[2], -3.0f);
}

TEST(BlockCodecLaws, UnderflowingScaleDecodesToZeros) {
  std::vector<float> values(32, 1e-39f);
  for (const Scheme id : {Scheme::Q4_0, Scheme::Q8_0}) {
    for (const float value : decode(id, encode(id, values))) EXPECT_EQ(value, 0.0f);
  }
  EXPECT_EQ(encode(Scheme::Q4_0, values)[2], std::byte{0});  // code 0 where the inverse is infinite
}

TEST(BlockCodecLaws, PlainTypesConvertToNearestEven) {
  const std::vector<float> values{1.0f, 1.00390625f, -1.01171875f, 65519.0f, 1e-8f};
  EXPECT_EQ(decode(Scheme::F32, encode(Scheme::F32, values)), values);
  EXPECT_EQ(decode(Scheme::BF16, encode(Scheme::BF16, values)),
            (std::vector<float>{1.0f, 1.0f, -1.015625f, 65536.0f, to_float(to_bfloat16(1e-8f))}));
  EXPECT_EQ(decode(Scheme::F16, encode(Scheme::F16, values)),
            (std::vector<float>{1.0f, 1.00390625f, -1.01171875f, 65504.0f, 0.0f}));
}

}  // namespace
}  // namespace qat
