// Fake quantization to signed integers as an autograd node: clipped straight-through gradient for the input, LSQ
// gradient for the scales.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "fake_quant/learned_scale.h"
#include "quant/scheme.h"

namespace qat {

// decode(encode(input)): groups of `width` consecutive values share a scale; fp32 scales [input.numel() / width]. Not
// differentiable. The result has the input's dtype.
at::Tensor integer_values(Scheme scheme, const at::Tensor& input, const at::Tensor& scales, int64_t width);

// `value`, as integer_values() gave it, as a function of the input and of the scales' log_change (both may be without
// gradient). The gradient of the input is 0 outside the code range. That of log_change is the LSQ gradient of the scale
// times the scale, over sqrt(features * code_max) (arXiv 1902.08153).
at::Tensor integer_fake_quantize(Scheme scheme, const at::Tensor& input, const at::Tensor& log_change,
                                 const at::Tensor& scales, int64_t width, const at::Tensor& value);

}  // namespace qat
