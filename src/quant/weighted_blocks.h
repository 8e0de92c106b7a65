// Q4_0 blocks whose codes do not follow from their values alone: weights that somebody says how much they matter, and
// values that move while their neighbours are rounded. A result is the exact fp32 number that scale and code stand for.
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

}  // namespace qat
