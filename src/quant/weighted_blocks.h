// Q4_0 blocks whose codes do not follow from their values alone: weights that somebody says how much they matter,
// values that move while their neighbours are rounded, and values with an offset to their rounding. A result is the
// exact fp32 number that scale and code stand for.
#pragma once

#include <span>

#include "core/float_types.h"

namespace qat {

// A row as llama.cpp quantizes it with an importance matrix (quantize_row_q4_0_impl, make_qx_quants; gguf_q4_0.md 2.3):
// per block the scale and codes of least squared error under the weights importance * sqrt(mean square of the row +
// value^2), of 19 scales near the rule's. `importance`: one per column, not negative. values.size() = importance.size()
// = results.size() = 32 * scales.size().
void quantize_row_by_importance(std::span<const float> values, std::span<const float> importance,
                                std::span<Float16> scales, std::span<float> results);

// The nearest value on the grid, each under a scale of its own.
void nearest_q4_0_values(std::span<const float> values, std::span<const Float16> scales, std::span<float> results);

// Values that are moved by `offsets`, counted in steps of their block's scale, and then rounded to the nearest on the
// grid. values.size() = offsets.size() = results.size() = 32 * scales.size().
void offset_q4_0_values(std::span<const float> values, std::span<const float> offsets, std::span<const Float16> scales,
                        std::span<float> results);

// What a gradient with respect to those results is, straight through the rounding, with respect to offsets and, one per
// block, to scales (as in block_scales.h, with v = value / scale + offset inside or outside of -8..7).
void offset_q4_0_gradients(std::span<const float> values, std::span<const float> offsets,
                           std::span<const Float16> scales, std::span<const float> gradient,
                           std::span<float> of_offsets, std::span<float> of_scales);

}  // namespace qat
