// qat_codec_dump SCHEME f32|bf16 < values > blocks: the block codec as a filter, for comparison with other encoders.
// qat_codec_dump importance WIDTH < rows > blocks: Q4_0 by importance; a row of fp32 values, then one of importance,
// ...
#include <cstdio>
#include <cstring>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "core/error.h"
#include "quant/block_codec.h"
#include "quant/weighted_blocks.h"

namespace {

template <class Value>
void encode_stream(const qat::QuantScheme& scheme, const std::string& input) {
  std::vector<Value> values(input.size() / sizeof(Value));
  std::memcpy(values.data(), input.data(), values.size() * sizeof(Value));
  const auto block_size = static_cast<size_t>(scheme.block_size);
  if (values.size() * sizeof(Value) != input.size() || values.size() % block_size != 0) {
    qat::fail("standard input: ", input.size(), " bytes are no whole number of blocks of ", scheme.block_size,
              " values");
  }
  std::vector<std::byte> blocks(static_cast<size_t>(scheme.row_bytes(static_cast<int64_t>(values.size()))));
  qat::encode_blocks(scheme.id, std::span<const Value>(values), {}, blocks);
  std::fwrite(blocks.data(), 1, blocks.size(), stdout);
}

void encode_by_importance(size_t width, const std::string& input) {
  std::vector<float> rows(input.size() / sizeof(float));
  std::memcpy(rows.data(), input.data(), rows.size() * sizeof(float));
  if (width == 0 || width % 32 != 0 || rows.size() % (2 * width) != 0) {
    qat::fail("standard input: ", rows.size(), " values are no pairs of rows of ", width);
  }
  const qat::QuantScheme& scheme = qat::scheme_by_name("q4_0");
  std::vector<float> results(width);
  std::vector<qat::Float16> scales(width / 32);
  std::vector<std::byte> blocks(static_cast<size_t>(scheme.row_bytes(static_cast<int64_t>(width))));
  for (auto row = std::span<const float>(rows); !row.empty(); row = row.subspan(2 * width)) {
    qat::quantize_row_by_importance(row.first(width), row.subspan(width, width), scales, results);
    qat::encode_blocks(scheme.id, std::span<const float>(results), scales, blocks);
    std::fwrite(blocks.data(), 1, blocks.size(), stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 3) qat::fail_usage("usage: qat_codec_dump SCHEME f32|bf16 < values > blocks");
    const std::string input{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
    if (std::string(argv[1]) == "importance") {
      encode_by_importance(std::stoul(argv[2]), input);
      return 0;
    }
    const qat::QuantScheme& scheme = qat::scheme_by_name(argv[1]);
    if (std::string(argv[2]) == "bf16") {
      encode_stream<qat::BFloat16>(scheme, input);
    } else {
      encode_stream<float>(scheme, input);
    }
    return 0;
  } catch (const qat::Error& error) {
    std::cerr << "qat_codec_dump: " << error.what() << "\n";
    return static_cast<int>(error.exit_code());
  }
}
