// A small seeded generator whose sequence is part of this project's file contents (shuffles, initial weights), so it
// must not change with the standard library.
#pragma once

#include <cstdint>

namespace qat {

// SplitMix64 (Steele, Lea, Flood 2014). Its whole state is one number, saved in training states.
class SplitMix64 {
 public:
  explicit SplitMix64(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += kIncrement);
    z = (z ^ (z >> 30)) * kFirstFactor;
    z = (z ^ (z >> 27)) * kSecondFactor;
    return z ^ (z >> 31);
  }
  // The number that next() gives for the index-th time, counted from 0, after this seed: no need to draw those before.
  static uint64_t at(uint64_t seed, uint64_t index) { return SplitMix64(seed + index * kIncrement).next(); }
  // Uniform in [0, bound), bound > 0, without modulo bias (Lemire 2019).
  uint64_t below(uint64_t bound) {
    for (;;) {
      const auto product = static_cast<unsigned __int128>(next()) * bound;
      if (static_cast<uint64_t>(product) >= (-bound) % bound) return static_cast<uint64_t>(product >> 64);
    }
  }
  // Uniform in [0, 1) with 53 random bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  uint64_t state() const { return state_; }

  // Its constants, for who draws many numbers at once in operations of another library.
  static constexpr uint64_t kIncrement = 0x9e3779b97f4a7c15u;
  static constexpr uint64_t kFirstFactor = 0xbf58476d1ce4e5b9u;
  static constexpr uint64_t kSecondFactor = 0x94d049bb133111ebu;

 private:
  uint64_t state_;
};

}  // namespace qat
