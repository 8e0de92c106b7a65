// What is made of a large weight, made a bounded number of values at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/projection.h"

namespace qat {

// Fills `result` (contiguous, the master's shape) with transform.apply(master) in the result's dtype. Without autograd.
void apply_by_rows(WeightTransform& transform, const at::Tensor& master, const at::Tensor& result);

// projection(x) for x [n, in], with a bounded part of the weight made at a time and nothing kept of it. Without autograd.
at::Tensor product_by_rows(const Projection& projection, const at::Tensor& x);

}  // namespace qat
