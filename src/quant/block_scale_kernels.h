// The vector kernels behind block_scales.h, each dispatched to the best instruction set of the machine at run time.
// Raw pointers, no checks: block_scales.cpp has checked the sizes.
#pragma once

#include <cstddef>

#include "core/float_types.h"

namespace qat::kernels {

void search_q4_0_scales(const BFloat16* values, size_t blocks, Float16* scales);
void block_scale_gradients(const BFloat16* values, const float* gradient, size_t blocks, const Float16* scales,
                           float* masked, float* of_scales);
void block_scale_gradients(const BFloat16* values, const BFloat16* gradient, size_t blocks, const Float16* scales,
                           BFloat16* masked, float* of_scales);

}  // namespace qat::kernels
