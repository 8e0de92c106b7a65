// Which scales the search of block_scales.h tries, as multiples of a scale; each is rounded to fp16 first.
#pragma once

#include <array>
#include <cstddef>

namespace qat {

// Of the rule's scale, which puts the extremum at -8 steps: it comes first and wins ties. Then scales that put the
// extremum at other places on that side, and on the side of +7.
inline constexpr std::array<float, 32> kCoarseFactors = [] {
  std::array<float, 32> factors{1.0f};
  size_t next = 1;
  for (int quarters = 27; quarters <= 44; ++quarters) {
    if (quarters != 32) factors[next++] = 32.0f / static_cast<float>(quarters);
  }
  for (int quarters = 24; next < factors.size(); ++quarters) factors[next++] = -32.0f / static_cast<float>(quarters);
  return factors;
}();

// Of the best of these.
inline constexpr std::array<float, 16> kFineFactors = [] {
  std::array<float, 16> factors{};
  for (size_t i = 0; i < 8; ++i) {
    const float change = 0.0025f * static_cast<float>(i + 1);
    factors[2 * i] = 1.0f + change;
    factors[2 * i + 1] = 1.0f - change;
  }
  return factors;
}();

}  // namespace qat
