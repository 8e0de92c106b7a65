#include "trainers/moment_codec.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

namespace qat {

namespace {

constexpr int kCodesPerOctave = 10;
constexpr int kTop = 255;
constexpr int kSignedTop = 127;

// Magnitudes by code of the second moment; the first moment has the upper half of them.
const std::array<float, kTop + 1>& magnitudes() {
  static const std::array<float, kTop + 1> table = [] {
    std::array<float, kTop + 1> values{};
    for (int code = 1; code <= kTop; ++code) {
      values[static_cast<size_t>(code)] = static_cast<float>(std::exp2(double(code - kTop) / kCodesPerOctave));
    }
    return values;
  }();
  return table;
}

// The largest code whose magnitude is at most `ratio`, in (0, 1]; below 1 if there is none.
int code_below(float ratio, const std::array<float, kTop + 1>& table) {
  // A float's bits are its logarithm, piecewise linear and never too large, but too small by less than a code.
  const int64_t octaves = int64_t{std::bit_cast<int32_t>(ratio)} - std::bit_cast<int32_t>(1.0f);
  const auto code = static_cast<int>(kTop + ((octaves * kCodesPerOctave) >> 23));
  return code >= 0 && code < kTop && table[static_cast<size_t>(code) + 1] <= ratio ? code + 1 : code;
}

// Code of a magnitude; `lowest` is the code that stands for 0.
int encode(float ratio, float random, int lowest, const std::array<float, kTop + 1>& table) {
  if (!(ratio > 0)) return lowest;
  const int below = std::max(code_below(ratio, table), lowest);
  if (below >= kTop) return kTop;
  const float low = below == lowest ? 0 : table[static_cast<size_t>(below)];
  const float high = table[static_cast<size_t>(below) + 1];
  return random * (high - low) < ratio - low ? below + 1 : below;
}

float largest_magnitude(std::span<const float> values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  return largest;
}

}  // namespace

float encode_first_moments(std::span<const float> values, const ElementRandom& random, int64_t first_element,
                           std::span<int8_t> codes) {
  constexpr int kLowest = kTop - kSignedTop;
  const auto& table = magnitudes();
  const float scale = largest_magnitude(values);
  for (size_t i = 0; i < values.size(); ++i) {
    const float drawn = random.of_first_moment(first_element + static_cast<int64_t>(i));
    const int code = scale > 0 ? encode(std::fabs(values[i]) / scale, drawn, kLowest, table) - kLowest : 0;
    codes[i] = static_cast<int8_t>(values[i] < 0 ? -code : code);
  }
  return scale;
}

float encode_second_moments(std::span<const float> values, const ElementRandom& random, int64_t first_element,
                            std::span<uint8_t> codes) {
  const auto& table = magnitudes();
  const float scale = largest_magnitude(values);
  for (size_t i = 0; i < values.size(); ++i) {
    const float drawn = random.of_second_moment(first_element + static_cast<int64_t>(i));
    const int code = scale > 0 ? encode(values[i] / scale, drawn, 0, table) : 0;
    codes[i] = static_cast<uint8_t>(code == 0 && values[i] > 0 ? 1 : code);
  }
  return scale;
}

void decode_first_moments(std::span<const int8_t> codes, float scale, std::span<float> values) {
  const auto& table = magnitudes();
  for (size_t i = 0; i < codes.size(); ++i) {
    const int code = codes[i];
    const float magnitude = code == 0 ? 0 : scale * table[static_cast<size_t>(kTop - kSignedTop + std::abs(code))];
    values[i] = code < 0 ? -magnitude : magnitude;
  }
}

void decode_second_moments(std::span<const uint8_t> codes, float scale, std::span<float> values) {
  const auto& table = magnitudes();
  for (size_t i = 0; i < codes.size(); ++i) values[i] = scale * table[codes[i]];
}

}  // namespace qat
