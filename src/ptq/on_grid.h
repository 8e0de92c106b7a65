// A weight on the Q4_0 grid, and the ways onto it that look at no more than one value's block and its importance.
#pragma once

#include <ATen/core/Tensor.h>

namespace qat {

// values = scale * code, so that the values rounded to BF16 encode to these codes under these scales.
struct OnGrid {
  at::Tensor values;  // fp32 [out, in]
  at::Tensor scales;  // fp16 [out, in / 32]
};

// quantize_row_by_importance() of every row (quant/weighted_blocks.h): weight fp32 [out, in], importance fp32 [in].
OnGrid by_importance(const at::Tensor& weight, const at::Tensor& importance);

// The scheme's rule, as quantization without any search has it. The values are BF16 numbers.
OnGrid by_rule(const at::Tensor& weight);

}  // namespace qat
