// One integer product or lookup of the reference's device arithmetic for mobile models, for comparison with LiteRT.
//
//   qat_mobile_product_dump static|dynamic|lookup int2|int4|int8 ROWS COLUMNS TOKENS INPUT_SCALE OUTPUT_SCALE < numbers
//   > outputs
//
// Standard input: packed codes (two's complement) of [ROWS, COLUMNS], fp32 scales [ROWS], fp32 activations [TOKENS,
// COLUMNS] or int32 ids [TOKENS]. Standard output: fp32 [TOKENS, ROWS], of a lookup [TOKENS, COLUMNS]. Scales are
// hexadecimal floats.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/error.h"
#include "reference/arithmetic.h"

namespace {

using namespace qat;

template <class Value>
std::vector<Value> read(int64_t count) {
  std::vector<Value> values(static_cast<size_t>(count));
  if (std::fread(values.data(), sizeof(Value), values.size(), stdin) != values.size())
    fail("standard input is too short");
  return values;
}

void run(const std::vector<std::string>& words) {
  const QuantScheme& row = scheme_by_name(words[1]);
  const int64_t rows = std::stoll(words[2]);
  const int64_t columns = std::stoll(words[3]);
  const int64_t tokens = std::stoll(words[4]);
  const auto codes = read<std::byte>(rows * row.row_bytes(columns));
  const auto scales = read<float>(rows);
  WeightView weight{&row, {rows, columns}, codes};
  weight.scales = scales;
  weight.scale_width = columns;
  if (words[0] == "static")
    weight.edges = {std::strtof(words[5].c_str(), nullptr), std::strtof(words[6].c_str(), nullptr)};

  ThreadPool pool(1);
  const auto arithmetic = make_mobile_device_arithmetic(pool, kAnyContext);
  Matrix result;
  if (words[0] == "lookup") {
    result = arithmetic->gather(weight, read<int32_t>(tokens));
  } else {
    const auto values = read<float>(tokens * columns);
    result = arithmetic->linear(Eigen::Map<const Matrix>(values.data(), tokens, columns), weight);
  }
  std::fwrite(result.data(), sizeof(float), static_cast<size_t>(result.size()), stdout);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 8)
      fail_usage("usage: qat_mobile_product_dump KIND SCHEME ROWS COLUMNS TOKENS INPUT_SCALE OUTPUT_SCALE");
    run({argv + 1, argv + argc});
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
