// Blocks that scripts/golden/make_codec_goldens.py encoded in numpy, apart from this code.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "core/mapped_file.h"
#include "quant/block_codec.h"

namespace qat {
namespace {

class CodecGolden : public testing::TestWithParam<Scheme> {};

TEST_P(CodecGolden, EncodesToTheSameBytes) {
  const QuantScheme& row = scheme(GetParam());
  const std::string path = std::string(QAT_SOURCE_DIR) + "/tests/golden/quant/codec_" + std::string(row.name) + ".bin";
  const MappedFile file(path);
  ByteReader reader(file.bytes(), path);
  const auto count = reader.read<uint32_t>();
  const auto size = reader.read<uint32_t>();
  ASSERT_EQ(size, row.block_size);
  ASSERT_GT(count, 0u);
  for (uint32_t block = 0; block < count; ++block) {
    std::vector<float> weights(size);
    std::memcpy(weights.data(), file.bytes().data() + 8 + size_t{block} * size * 4, size * 4);
    const auto block_bytes = static_cast<size_t>(row.block_bytes);
    const auto wanted = file.bytes().subspan(8 + size_t{count} * size * 4 + block * block_bytes, block_bytes);
    std::vector<std::byte> encoded(block_bytes);
    encode_blocks(GetParam(), std::span<const float>(weights), {}, encoded);
    ASSERT_EQ(std::memcmp(encoded.data(), wanted.data(), block_bytes), 0) << "block " << block;
  }
}

INSTANTIATE_TEST_SUITE_P(Numpy, CodecGolden, testing::Values(Scheme::Q4_0, Scheme::Q8_0, Scheme::Q6_K),
                         [](const auto& test) { return std::string(scheme(test.param).name); });

}  // namespace
}  // namespace qat
