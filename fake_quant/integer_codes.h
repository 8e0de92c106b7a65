// Weights in integer schemes as packed codes. On all threads; not differentiable. Groups of `width` consecutive values,
// a whole number of bytes of codes, share a scale: fp32 [values / width].
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "quant/scheme.h"

namespace qat {

// encode(master): bytes [row_bytes of all its values].
at::Tensor packed_integer_codes(Scheme scheme, const at::Tensor& master, const at::Tensor& scales, int64_t width);

// The same values as integer_values() (integer_fake_quantize.h), from the codes of a master with the shape and dtype of
// `like`.
at::Tensor values_of_integer_codes(Scheme scheme, const at::Tensor& codes, const at::Tensor& scales, int64_t width,
                                   const at::Tensor& like);

}  // namespace qat
