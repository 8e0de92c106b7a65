// Q4_0 scales that are free numbers, one fp16 per block: of least squared error, or learned (LSQ). Highway kernels that
// equal the scalar rules. Multithreading is the caller's.
#pragma once

#include <span>

#include "core/float_types.h"

namespace qat {

// The scheme's rule: what the file holds of it. values.size() = 32 * scales.size().
void rule_block_scales(std::span<const BFloat16> values, std::span<Float16> scales);

// A better scale than the rule's for every block: of 48 fp16 scales near it, on either side of the extremum, the one
// whose decode(encode(block)) has the least squared error (fp32 sum in the block's order), the first of several. What
// is tried: scalar_codec.cpp. A block of zeros keeps the rule's zero. values.size() = 32 * scales.size().
void search_block_scales(std::span<const BFloat16> values, std::span<Float16> scales);

// Scales that learn as the grid and the file have them: to the nearest fp16 that is finite and not 0.
void round_block_scales(std::span<const float> scales, std::span<Float16> rounded);

// What the backward pass of learned scales needs of whole blocks (LSQ, arXiv 1902.08153). With v = value / scale:
// `masked` gets the gradient where v is inside -8..7 and 0 elsewhere; of_scales, one per block, the sum of gradient *
// (round(v) - v) inside and of gradient * -8 or 7 outside.
void block_scale_gradients(std::span<const BFloat16> values, std::span<const float> gradient,
                           std::span<const Float16> scales, std::span<float> masked, std::span<float> of_scales);
void block_scale_gradients(std::span<const BFloat16> values, std::span<const BFloat16> gradient,
                           std::span<const Float16> scales, std::span<BFloat16> masked, std::span<float> of_scales);

}  // namespace qat
