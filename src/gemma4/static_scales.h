// Scales of static int8 activations and of the int8 key-value cache: symmetric, one fp32 number per edge, found before
// inference (mobile_format.md 1.4, 1.5).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace qat {

// Of a linear's input and output; 0 = this end is not quantized.
struct LinearScales {
  float input = 0;
  float output = 0;
  bool operator==(const LinearScales&) const = default;
};

// Of a layer's own keys (normed and rotated) and values (normed); 0 = not quantized.
struct CacheScales {
  float key = 0;
  float value = 0;
  bool operator==(const CacheScales&) const = default;
};

struct StaticScales {
  // Zeros for a weight or a layer without.
  LinearScales of_linear(std::string_view weight) const {
    const auto found = linears.find(weight);
    return found == linears.end() ? LinearScales() : found->second;
  }
  CacheScales of_cache(int64_t layer) const {
    const auto found = caches.find(layer);
    return found == caches.end() ? CacheScales() : found->second;
  }

  std::map<std::string, LinearScales, std::less<>> linears;  // by WeightTable name
  std::map<int64_t, CacheScales> caches;                     // by layer; layers with own keys and values only
};

}  // namespace qat
