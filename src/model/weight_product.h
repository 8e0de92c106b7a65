// Products with a weight matrix. BF16 operands are summed in fp32 and rounded once, as every BF16 GEMM does; on a CPU
// without BF16 instructions the product runs on fp32 copies of the operands, which is many times faster and as exact.
#pragma once

#include <ATen/core/Tensor.h>

namespace qat {

// x [..., in] times the transpose of weight [out, in] -> [..., out] in x's dtype. Differentiable.
at::Tensor multiply_by_weight(const at::Tensor& x, const at::Tensor& weight);

// The products of the head's derivatives. Where the processor multiplies BF16, a gradient is rounded to a BF16 weight's
// type first.
//
// gradient [n, out] times weight [out, in] -> fp32 [n, in]. Not differentiable.
at::Tensor gradient_of_input(const at::Tensor& gradient, const at::Tensor& weight);

// Adds the product of gradient [n, out], transposed, and x [n, in] to `total` (fp32 [out, in]). Not differentiable.
void add_gradient_of_weight(at::Tensor& total, const at::Tensor& gradient, const at::Tensor& x);

}  // namespace qat
