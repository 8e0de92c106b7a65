// Rows of weights that are hard on a quantizer, for property tests.
#pragma once

#include <array>
#include <cmath>
#include <string_view>
#include <vector>

#include "core/float_types.h"
#include "core/random.h"

namespace qat::test {

enum class RowKind { Gaussian, MixedMagnitudes, Tiny, Subnormal, Huge, Zero, Ties, Outliers, Bfloat16Ties };

inline constexpr std::array kRowKinds{
    RowKind::Gaussian, RowKind::MixedMagnitudes, RowKind::Tiny,        RowKind::Subnormal, RowKind::Huge, RowKind::Zero,
    RowKind::Ties,     RowKind::Outliers,        RowKind::Bfloat16Ties};

inline float gaussian(SplitMix64& random) {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - random.uniform()));
  return static_cast<float>(radius * std::cos(6.283185307179586 * random.uniform()));
}

inline float draw_weight(RowKind kind, SplitMix64& random) {
  const float sign = random.below(2) == 0 ? 1.0f : -1.0f;
  const auto power = [&](int low, int high) {
    return std::ldexp(1.0f, low + static_cast<int>(random.below(static_cast<uint64_t>(high - low))));
  };
  switch (kind) {
    case RowKind::Gaussian:
      return 0.02f * gaussian(random);
    case RowKind::MixedMagnitudes:
      return gaussian(random) * power(-30, 10);
    case RowKind::Tiny:
      return gaussian(random) * power(-40, -20);
    case RowKind::Subnormal:
      return gaussian(random) * power(-149, -120);
    case RowKind::Huge:
      return gaussian(random) * power(8, 40);
    case RowKind::Zero:
      return sign * 0.0f;
    case RowKind::Ties:
      return sign * 0.125f * static_cast<float>(random.below(9)) / 8.0f;
    case RowKind::Outliers:
      return random.below(20) == 0 ? gaussian(random) : 1e-4f * gaussian(random);
    case RowKind::Bfloat16Ties:
      // Few significant bits: many values lie exactly between two codes, and extrema repeat with both signs.
      return sign * (1.0f + static_cast<float>(random.below(128)) / 128.0f) * power(-9, -5);
  }
  return 0.0f;
}

// `count` values; blocks of one row may be of the same kind only, so callers draw many rows.
inline std::vector<float> draw_row(RowKind kind, size_t count, SplitMix64& random) {
  std::vector<float> row(count);
  for (float& value : row) value = draw_weight(kind, random);
  return row;
}

inline std::vector<BFloat16> to_bfloat16(const std::vector<float>& values) {
  std::vector<BFloat16> result;
  for (const float value : values) result.push_back(qat::to_bfloat16(value));
  return result;
}

inline std::vector<float> widen(const std::vector<BFloat16>& values) {
  std::vector<float> result;
  for (const BFloat16 value : values) result.push_back(to_float(value));
  return result;
}

}  // namespace qat::test
