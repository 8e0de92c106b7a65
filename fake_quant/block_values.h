// Whole weights in block schemes: masters to forward values, at once or by way of their blocks. On all threads; not
// differentiable. Masters are BF16 or float and count as BF16 numbers; `scales` is undefined (the scheme's rule) or
// holds one fp16 per block.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/scheme.h"

namespace qat {

// The BF16-rounded master, whatever dtype the model computes in: what quantizers read.
at::Tensor as_bfloat16(const at::Tensor& master);

// bf16(decode(encode(master))), in the master's shape and dtype.
at::Tensor block_values(Scheme scheme, const at::Tensor& master, const at::Tensor& scales);

// encode(master): bytes [row_bytes of all its values].
at::Tensor encoded_blocks(Scheme scheme, const at::Tensor& master, const at::Tensor& scales);

// The same values as block_values(), from the blocks of a master with the shape and dtype of `like`.
at::Tensor values_of_blocks(Scheme scheme, const at::Tensor& blocks, const at::Tensor& like);

// search_block_scales() of Q4_0 (quant/block_scales.h): fp16 [blocks].
at::Tensor searched_block_scales(const at::Tensor& master);

}  // namespace qat
