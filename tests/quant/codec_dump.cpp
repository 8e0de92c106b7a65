// qat_codec_dump SCHEME f32|bf16 < values > blocks: the block codec as a filter, for comparison with other encoders.
#include <cstdio>
#include <cstring>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "core/error.h"
#include "quant/block_codec.h"

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

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 3) qat::fail_usage("usage: qat_codec_dump SCHEME f32|bf16 < values > blocks");
    const qat::QuantScheme& scheme = qat::scheme_by_name(argv[1]);
    const std::string input{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
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
