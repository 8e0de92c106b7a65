// The bytes of a Q6_K block (gguf_q4_0.md 2.1).
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/float_types.h"

namespace qat {

// 256 codes 0..63 (value + 32) cut in low nibbles and high bit pairs, a sub-scale per 16 values, one scale.
struct BlockQ6_K {
  uint8_t low[128];
  uint8_t high[64];
  int8_t sub_scales[16];
  Float16 scale;
};
static_assert(sizeof(BlockQ6_K) == 210);

// Each half of 128 values: value l, l + 32, l + 64 and l + 96 share byte l of `high`.
inline void pack_q6_k_codes(const uint8_t* codes, BlockQ6_K& block) {
  for (size_t half = 0; half < 2; ++half) {
    const uint8_t* c = codes + half * 128;
    for (size_t l = 0; l < 32; ++l) {
      block.low[half * 64 + l] = static_cast<uint8_t>((c[l] & 15) | ((c[l + 64] & 15) << 4));
      block.low[half * 64 + l + 32] = static_cast<uint8_t>((c[l + 32] & 15) | ((c[l + 96] & 15) << 4));
      block.high[half * 32 + l] = static_cast<uint8_t>((c[l] >> 4) | ((c[l + 32] >> 4) << 2) | ((c[l + 64] >> 4) << 4) |
                                                       ((c[l + 96] >> 4) << 6));
    }
  }
}

// The 256 codes as signed numbers -32..31.
inline void unpack_q6_k_codes(const BlockQ6_K& block, int8_t* codes) {
  const auto code = [](int low, int high_pair) { return static_cast<int8_t>((low | ((high_pair & 3) << 4)) - 32); };
  for (size_t half = 0; half < 2; ++half) {
    const uint8_t* low = block.low + half * 64;
    const uint8_t* high = block.high + half * 32;
    int8_t* c = codes + half * 128;
    for (size_t l = 0; l < 32; ++l) {
      c[l] = code(low[l] & 15, high[l]);
      c[l + 32] = code(low[l + 32] & 15, high[l] >> 2);
      c[l + 64] = code(low[l] >> 4, high[l] >> 4);
      c[l + 96] = code(low[l + 32] >> 4, high[l] >> 6);
    }
  }
}

}  // namespace qat
