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
    if (fault_.empty()) fault_ = "the witness lacks the " + what + "; train or quantize again";
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
  if (!(std::abs(scale - wanted) <= kScaleTolerance * std::abs(wanted) + kSmallestStep) && fault_.empty()) {
    fault_ = join(what, ": a scale is ", scale, ", training cached ", wanted);
  }
  for (size_t i = 2; i < expected.size(); ++i) {
    const int difference = std::abs(static_cast<int8_t>(found[i]) - static_cast<int8_t>(expected[i]));
    ++codes_;
    codes_aside_ += difference > 0 ? 1 : 0;
    if (difference > 1 && fault_.empty()) {
      fault_ = join(what, ": a code is ", static_cast<int>(static_cast<int8_t>(found[i])), ", training cached ",
                    static_cast<int>(static_cast<int8_t>(expected[i])));
    }
  }
}

std::string WitnessCaches::fault() const {
  if (!fault_.empty()) return fault_;
  if (static_cast<double>(codes_aside_) <= kLargestEdgeShare * static_cast<double>(codes_)) return "";
  return join(codes_aside_, " of ", codes_,
              " codes are one step beside those that training cached; training used another rule");
}

}  // namespace qat
