// Fake quantization in ATen operations, for devices that the kernels of src/quant do not run on (CUDA). Operation by
// operation the rules of quant/grid.h, so that values have the same bits on every device; tests compare them with the
// kernels on the CPU. Not differentiable.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "quant/scheme.h"

namespace qat {

// bf16(decode(encode(bf16(master)))) of a Q4_0 or Q8_0 weight, in the master's dtype. `scales`: fp16, one per block
// (Q4_0 only), or undefined for the scheme's rule.
at::Tensor block_values_in_aten(Scheme scheme, const at::Tensor& master, const at::Tensor& scales);

// decode(encode(input)) of signed integers in the input's dtype: groups of `width` values share a scale, fp32
// [input.numel() / width].
at::Tensor integer_values_in_aten(Scheme scheme, const at::Tensor& input, const at::Tensor& scales, int64_t width);

// What the backward pass of integer_values needs.
struct IntegerGradients {
  at::Tensor masked;     // the gradient inside the code range, 0 elsewhere; the input's dtype
  at::Tensor of_scales;  // double [groups]: gradient times round(v) - v inside and code_min or code_max outside, v =
                         // input / scale
};
IntegerGradients integer_gradients_in_aten(Scheme scheme, const at::Tensor& input, const at::Tensor& gradient,
                                           const at::Tensor& scales, int64_t width);

// Keys or values after a q8_0 cache in groups of 32, turned by Hadamard blocks of `rotation` values before and back
// after (0: not); the activation's dtype.
at::Tensor key_values_in_aten(const at::Tensor& activation, int64_t rotation);

}  // namespace qat
