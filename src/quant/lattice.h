// Masters that lie on a 4-bit lattice already, as those that were trained with fake quantization and saved in BF16 do
// (qat_methods.md 2.4): the Q4_0 scales and codes that they came from are found again instead of rounded anew. Highway
// kernels; every instruction set gives the same scales. Multithreading is the caller's.
#pragma once

#include <cstdint>
#include <span>

#include "core/float_types.h"

namespace qat {

// How many blocks there were of each kind.
struct LatticeCounts {
  int64_t exact = 0;    // the fp16 scale times the codes, rounded to the masters' type or to BF16, gives all 32 values
  int64_t rounded = 0;  // an fp32 step does, but no fp16: codes are kept under the fp16 nearest to the step
  int64_t off = 0;      // none does: the fp16 scale of ggml's rule for the BF16 numbers

  int64_t blocks() const { return exact + rounded + off; }
  LatticeCounts& operator+=(const LatticeCounts& other) {
    exact += other.exact;
    rounded += other.rounded;
    off += other.off;
    return *this;
  }
  bool operator==(const LatticeCounts&) const = default;
};

// The scale of every block, under which encode_blocks() gives the codes. Exact means exact: a block is found if any
// finite fp16 scale above 2^-25 of either sign fits, whatever rule chose it, and never otherwise. Where several fit,
// which the values cannot tell apart, the finest step whose largest code is -8, or else 7, 6, ... 1 of a positive
// scale, comes first, and of its scales one of 8 significant bits (a BF16 number), then the middle one. Zeros are on
// every lattice and keep the rule's zero; blocks with NaN or infinity are off. values.size() = 32 * scales.size().
LatticeCounts recover_block_scales(std::span<const BFloat16> values, std::span<Float16> scales);
LatticeCounts recover_block_scales(std::span<const Float16> values, std::span<Float16> scales);
LatticeCounts recover_block_scales(std::span<const float> values, std::span<Float16> scales);

}  // namespace qat
