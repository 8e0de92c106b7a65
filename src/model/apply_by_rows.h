// A weight transform applied to a large weight a bounded number of values at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/projection.h"

namespace qat {

// Fills `result` (contiguous, the master's shape) with transform.apply(master) in the result's dtype. Without autograd.
void apply_by_rows(WeightTransform& transform, const at::Tensor& master, const at::Tensor& result);

}  // namespace qat
