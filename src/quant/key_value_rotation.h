// The rotation that spreads outliers over a head before keys and values enter a q8_0 cache, and turns them back after: llama.cpp
// applies it where the first layer's head size is a multiple of 64 (src/llama-kv-cache.cpp; gguf_q4_0.md section 3).
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

namespace qat {

// Sizes of the Hadamard blocks within a head; 0 = not rotated.
struct KeyValueRotation {
  int64_t key = 0;    // the largest power of two that divides the head size
  int64_t value = 0;  // 64
};

inline KeyValueRotation key_value_rotation(int64_t first_layer_head_dim, int64_t head_dim) {
  if (first_layer_head_dim % 64 != 0) return {};
  return {head_dim & -head_dim, 64};
}

// Turns groups of `size` values (a power of two) by the orthonormal Walsh-Hadamard matrix; twice gives the input again.
inline void rotate_hadamard(std::span<float> values, int64_t size) {
  const auto group = static_cast<size_t>(size);
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  for (float& value : values) value *= scale;
  for (size_t start = 0; start < values.size(); start += group) {
    for (size_t half = 1; half < group; half *= 2) {
      for (size_t i = start; i < start + group; i += 2 * half) {
        for (size_t j = i; j < i + half; ++j) {
          const float left = values[j];
          const float right = values[j + half];
          values[j] = left + right;
          values[j + half] = left - right;
        }
      }
    }
  }
}

}  // namespace qat
