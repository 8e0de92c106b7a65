// The straight-through estimator as an autograd node: forward gives another value, backward passes the gradient unchanged.
#pragma once

#include <ATen/core/Tensor.h>

namespace qat {

// `value`, with the gradient of the identity with respect to `input`. Same shape and dtype.
at::Tensor straight_through(const at::Tensor& input, const at::Tensor& value);

}  // namespace qat
