#pragma once

namespace qat {

// Whether this CPU has instructions for products of BF16, so that LibTorch multiplies BF16 at more than fp32's speed.
bool cpu_multiplies_bfloat16();

// Whether LibTorch also lends its products of blocks (cpublas::brgemm) for them: on x86 it does.
bool cpu_multiplies_bfloat16_blocks();

}  // namespace qat
