#include "quant/packing.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/random.h"

namespace qat {
namespace {

std::vector<int> packed(Scheme id, CodeBytes form, const std::vector<int8_t>& codes) {
  std::vector<std::byte> bytes(static_cast<size_t>(scheme(id).row_bytes(static_cast<int64_t>(codes.size()))));
  pack_codes(id, form, codes, bytes);
  std::vector<int> result;
  for (const std::byte byte : bytes) result.push_back(std::to_integer<int>(byte));
  return result;
}

// By hand: the first code is in the low bits; offset codes are code + 8 and code + 2 (mobile_format.md 2.1, 2.3).
TEST(Packing, BytesByHand) {
  const std::vector<int8_t> int4{1, -8, 7, -1, 0, 0};
  EXPECT_EQ(packed(Scheme::Int4, CodeBytes::TwosComplement, int4), (std::vector<int>{0x81, 0xf7, 0x00}));
  EXPECT_EQ(packed(Scheme::Int4, CodeBytes::Offset, int4), (std::vector<int>{0x09, 0x7f, 0x88}));
  const std::vector<int8_t> int2{1, 0, -1, -2, -2, -2, -2, 1};
  EXPECT_EQ(packed(Scheme::Int2, CodeBytes::TwosComplement, int2), (std::vector<int>{0b10110001, 0b01101010}));
  EXPECT_EQ(packed(Scheme::Int2, CodeBytes::Offset, int2), (std::vector<int>{0b00011011, 0b11000000}));
  const std::vector<int8_t> int8{-128, 127, -1};
  for (const CodeBytes form : {CodeBytes::TwosComplement, CodeBytes::Offset}) {
    EXPECT_EQ(packed(Scheme::Int8, form, int8), (std::vector<int>{0x80, 0x7f, 0xff}));
  }
}

class PackedScheme : public testing::TestWithParam<Scheme> {};

TEST_P(PackedScheme, UnpackingGivesTheCodesBackAndTheFormsDifferInTheTopBits) {
  const QuantScheme& row = scheme(GetParam());
  SplitMix64 random(5);
  std::vector<int8_t> codes(256 * 4);
  const auto range = static_cast<uint64_t>(row.code_max - row.code_min + 1);
  for (int8_t& code : codes) code = static_cast<int8_t>(row.code_min + static_cast<int>(random.below(range)));
  std::vector<std::vector<std::byte>> forms;
  for (const CodeBytes form : {CodeBytes::TwosComplement, CodeBytes::Offset}) {
    std::vector<std::byte>& bytes = forms.emplace_back(static_cast<size_t>(row.row_bytes(1024)));
    pack_codes(GetParam(), form, codes, bytes);
    std::vector<int8_t> back(codes.size());
    unpack_codes(GetParam(), form, bytes, back);
    EXPECT_EQ(back, codes);
  }
  const std::byte mask{static_cast<unsigned char>(GetParam() == Scheme::Int4   ? 0x88
                                                  : GetParam() == Scheme::Int2 ? 0xaa
                                                                               : 0)};
  for (size_t i = 0; i < forms[0].size(); ++i) ASSERT_EQ(forms[0][i] ^ forms[1][i], mask) << i;
}

TEST_P(PackedScheme, EveryByteStandsForCodesOfTheRange) {
  const QuantScheme& row = scheme(GetParam());
  std::vector<std::byte> all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<std::byte>(byte));
  for (const CodeBytes form : {CodeBytes::TwosComplement, CodeBytes::Offset}) {
    std::vector<int8_t> codes(all.size() * static_cast<size_t>(row.block_size));
    unpack_codes(GetParam(), form, all, codes);
    for (const int code : codes) ASSERT_TRUE(code >= row.code_min && code <= row.code_max) << code;
    std::vector<std::byte> back(all.size());
    pack_codes(GetParam(), form, codes, back);
    EXPECT_EQ(back, all);
  }
}

INSTANTIATE_TEST_SUITE_P(Integers, PackedScheme, testing::Values(Scheme::Int2, Scheme::Int4, Scheme::Int8),
                         [](const auto& test) { return std::string(scheme(test.param).name); });

}  // namespace
}  // namespace qat
