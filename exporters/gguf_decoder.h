// A decoder of GGUF tensor bytes for verification: plain scalar code written from the format's description, apart from the
// encoders, the kernels and the reference inference. Source: gguf_q4_0.md 2.1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quant/scheme.h"

namespace qat {

// Codes, scales and values of a run of whole blocks.
struct DecodedBlocks {
  std::vector<int8_t> codes;      // signed, one per value
  std::vector<std::byte> scales;  // stored scale bytes, block after block (Q6_K: fp16 d, then 16 sub-scales)
  std::vector<float> values;      // exact
};

DecodedBlocks decode_for_verification(Scheme scheme, std::span<const std::byte> blocks);

}  // namespace qat
