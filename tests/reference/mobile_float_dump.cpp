// One fp32 operation of the reference's device arithmetic for mobile models, for comparison with LiteRT.
//
//   qat_mobile_float_dump KIND ROWS WIDTH PARAMETERS... < numbers > outputs
//
//   norm      EPSILON                                      x [ROWS, WIDTH], weight [WIDTH]
//   rotate    THETA FIRST_POSITION                         x [ROWS, WIDTH], one head
//   gate                                                   gate, factor [ROWS, WIDTH]
//   softcap   CAP                                          x [ROWS, WIDTH]
//   linear    OUTPUTS                                      x [ROWS, WIDTH], weight [OUTPUTS, WIDTH]
//   attention HEADS WINDOW CONTEXT KEYS KEY_SCALE VALUE_SCALE
//             queries [ROWS, HEADS * WIDTH] at the last positions, keys and values [KEYS, WIDTH] of one head
//
// All numbers are fp32; outputs have the shape of x or of queries. Fractions are hexadecimal floats.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/error.h"
#include "reference/arithmetic.h"

namespace {

using namespace qat;

Matrix read(int64_t rows, int64_t columns) {
  Matrix values(rows, columns);
  const auto count = static_cast<size_t>(values.size());
  if (std::fread(values.data(), sizeof(float), count, stdin) != count) fail("standard input is too short");
  return values;
}

Matrix compute(const std::string& kind, int64_t rows, int64_t width, const std::vector<std::string>& parameters) {
  const auto integer = [&](size_t index) { return static_cast<int64_t>(std::stoll(parameters.at(index))); };
  const auto fraction = [&](size_t index) { return std::strtof(parameters.at(index).c_str(), nullptr); };
  ThreadPool pool(1);
  const auto arithmetic = make_mobile_device_arithmetic(pool, kind == "attention" ? integer(2) : kAnyContext);
  Matrix x = read(rows, kind == "attention" ? integer(0) * width : width);
  if (kind == "norm") {
    const Matrix weight = read(1, width);
    arithmetic->norm(x, width, row_of(weight, 0), fraction(0));
  } else if (kind == "rotate") {
    arithmetic->rotate(x, {static_cast<double>(fraction(0)), width, width / 2, 1}, integer(1));
  } else if (kind == "gate") {
    arithmetic->gate(x, read(rows, width));
  } else if (kind == "softcap") {
    arithmetic->softcap(x, fraction(0));
  } else if (kind == "linear") {
    const Matrix weight = read(integer(0), width);
    const std::span<const float> values(weight.data(), static_cast<size_t>(weight.size()));
    return arithmetic->linear(x, {&scheme(Scheme::F32), {weight.rows(), width}, std::as_bytes(values)});
  } else if (kind == "attention") {
    KeyValueCache cache(CacheType::Int8, 1, width, integer(1), {fraction(4), fraction(5)});
    const Matrix keys = read(integer(3), width), values = read(integer(3), width);
    cache.append(keys, values);
    return arithmetic->attend(x, cache, {integer(0), 1, width, integer(1), integer(3) - rows});
  } else {
    fail_usage("no such operation: ", kind);
  }
  return x;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 4) fail_usage("usage: qat_mobile_float_dump KIND ROWS WIDTH PARAMETERS...");
    const Matrix result = compute(argv[1], std::stoll(argv[2]), std::stoll(argv[3]), {argv + 4, argv + argc});
    std::fwrite(result.data(), sizeof(float), static_cast<size_t>(result.size()), stdout);
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
