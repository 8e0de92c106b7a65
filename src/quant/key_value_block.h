// One block of a q8_0 key-value cache: an fp16 scale and 32 codes, by the rule of llama.cpp's kernels (grid.h,
// "runtime"). Training and reference inference both store and read keys and values through these two functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "core/float_types.h"
#include "quant/grid.h"

namespace qat {

inline constexpr int64_t kKeyValueBlockBytes = 2 + grid::kBlock;

// Bytes of `count` values; `count` is a multiple of 32.
inline constexpr int64_t key_value_bytes(int64_t count) { return count / grid::kBlock * kKeyValueBlockBytes; }

inline void encode_key_values(std::span<const float> values, std::byte* bytes) {
  for (size_t i = 0; i < values.size(); i += grid::kBlock, bytes += kKeyValueBlockBytes) {
    const std::span<const float, grid::kBlock> block(values.data() + i, grid::kBlock);
    const Float16 scale = to_float16(grid::q8_0_scale(block));
    const float inverse = grid::q8_0_runtime_inverse(block);
    std::memcpy(bytes, &scale, sizeof(scale));
    for (size_t j = 0; j < grid::kBlock; ++j) {
      bytes[2 + j] = static_cast<std::byte>(grid::q8_0_runtime_code(block[j], inverse));
    }
  }
}

inline void decode_key_values(const std::byte* bytes, std::span<float> values) {
  for (size_t i = 0; i < values.size(); i += grid::kBlock, bytes += kKeyValueBlockBytes) {
    Float16 scale;
    std::memcpy(&scale, bytes, sizeof(scale));
    for (size_t j = 0; j < grid::kBlock; ++j) {
      values[i + j] = grid::q8_0_value(static_cast<int8_t>(bytes[2 + j]), scale);
    }
  }
}

}  // namespace qat
