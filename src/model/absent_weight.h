// Weights whose values are elsewhere between their uses: the tensor stays, with shape, gradient and whatever else
// refers to it, and its memory comes and goes.
#pragma once

#include <ATen/core/Tensor.h>

namespace qat {

// A tensor on the CPU that has this shape and no memory. It must not be read before give_memory().
at::Tensor absent_weight(at::IntArrayRef shape, at::ScalarType dtype);
bool is_absent(const at::Tensor& weight);

// Memory for the tensor's values, not initialised; and back to none. `weight` and its views see both.
void give_memory(const at::Tensor& weight);
void take_memory(const at::Tensor& weight);

}  // namespace qat
