// Rounding up or down at random, so that what is lost at each step averages out over steps. The random numbers are a
// function of seed, step, weight and element: they depend on no thread, and a resumed run draws the same ones.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

#include "core/float_types.h"
#include "core/random.h"

namespace qat {

// The random numbers of one weight at one step.
class ElementRandom {
 public:
  ElementRandom(uint64_t seed, int64_t step, std::string_view weight);

  // 16 bits for the master, and for each moment a number in [0, 1); all independent of each other.
  uint32_t of_master(int64_t element) const { return static_cast<uint32_t>(draw(element) & 0xffffu); }
  float of_first_moment(int64_t element) const { return fraction(draw(element) >> 16); }
  float of_second_moment(int64_t element) const { return fraction(draw(element) >> 40); }

  // What they follow from: SplitMix64's seed.
  uint64_t key() const { return key_; }

 private:
  uint64_t draw(int64_t element) const { return SplitMix64::at(key_, static_cast<uint64_t>(element)); }
  static float fraction(uint64_t bits) { return static_cast<float>(bits & 0xffffffu) * 0x1p-24f; }

  uint64_t key_;
};

// One of the two BF16 numbers around `value`, each as likely as the value is near to it. `random`: 16 bits.
inline BFloat16 round_stochastically(float value, uint32_t random) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7f800000u) == 0x7f800000u) return to_bfloat16(value);  // infinite or NaN
  return {static_cast<uint16_t>((bits + random) >> 16)};
}

}  // namespace qat
