// Tensors of mapped files as LibTorch's.
#pragma once

#include <ATen/core/Tensor.h>

#include "io/tensor_source.h"

namespace qat {

// The numbers as the file has them, BF16, fp16 or fp32: its own bytes, only to be read and as long as the source lives.
// They need not lie aligned, which only a copy may overlook.
at::Tensor mapped_tensor(const TensorView& tensor);

// The same, copied if the file does not align it: safetensors does not promise that.
at::Tensor aligned_tensor(const TensorView& tensor);

}  // namespace qat
