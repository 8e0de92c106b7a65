// Scales of Q4_0 blocks from the lattice that a master lies on (quant/lattice.h), on all threads.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/lattice.h"

namespace qat {

struct RecoveredScales {
  at::Tensor scales;  // fp16 [blocks]
  LatticeCounts counts;
};

// Of a master in BF16, fp16 or fp32, read as it is.
RecoveredScales recovered_block_scales(const at::Tensor& master);

}  // namespace qat
