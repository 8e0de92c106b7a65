#include "exporters/witness_caches.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "core/error.h"
#include "core/float_types.h"
#include "quant/key_value_block.h"

namespace qat {

namespace {

// fp16 has 11 bits, and steps of 2^-24 at its lower end: scales of almost equal blocks may differ by one step.
constexpr float kScaleTolerance = 1.0f / 1024;
constexpr float kSmallestStep = 1.0f / (1 << 24);

float scale_of(std::span<const std::byte> block) {
  Float16 scale;
  std::memcpy(&scale, block.data(), sizeof(scale));
  return to_float(scale);
}

}  // namespace

void WitnessCaches::appended(int64_t layer, int64_t first_position, int64_t positions, std::span<std::byte> keys,
                             std::span<std::byte> values) {
  static const WitnessCache kNone;
  const auto found = witness_.caches.find(layer);
  const WitnessCache& cache = found == witness_.caches.end() ? kNone : found->second;
  compare(join("keys of layer ", layer), first_position, positions, cache.keys, keys);
  compare(join("values of layer ", layer), first_position, positions, cache.values, values);
}

void WitnessCaches::compare(const std::string& what, int64_t first_position, int64_t positions,
                            std::span<const std::byte> witness, std::span<std::byte> rows) {
  const size_t position_bytes = rows.size() / static_cast<size_t>(positions);
  const size_t offset = static_cast<size_t>(prompt_start_ + first_position) * position_bytes;
  if (offset + rows.size() > witness.size()) {
    comparison_.add_fault("the witness lacks the " + what + "; train or quantize again");
    return;
  }
  const std::span<const std::byte> expected = witness.subspan(offset, rows.size());
  for (size_t i = 0; i < rows.size(); i += kKeyValueBlockBytes) {
    compare_block(what, expected.subspan(i, kKeyValueBlockBytes), rows.subspan(i, kKeyValueBlockBytes));
  }
  std::copy(expected.begin(), expected.end(), rows.begin());
}

void WitnessCaches::compare_block(const std::string& what, std::span<const std::byte> expected,
                                  std::span<const std::byte> found) {
  const float wanted = scale_of(expected);
  const float scale = scale_of(found);
  if (!(std::abs(scale - wanted) <= kScaleTolerance * std::abs(wanted) + kSmallestStep)) {
    comparison_.add_fault(join(what, ": a scale is ", scale, ", training cached ", wanted));
  }
  const auto codes_of = [](std::span<const std::byte> block) {
    const auto codes = block.subspan(sizeof(Float16));
    return std::span(reinterpret_cast<const int8_t*>(codes.data()), codes.size());
  };
  comparison_.compare(what, codes_of(expected), codes_of(found));
}

}  // namespace qat
