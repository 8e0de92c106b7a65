// The nearest values on the Q4_0 grid to a weight, for tests of quantization without training.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>

#include "quant/weighted_blocks.h"

namespace qat::testing {

// weight fp32 [out, in], scales fp16 [out, in / 32].
inline at::Tensor nearest_on_grid(const at::Tensor& weight, const at::Tensor& scales) {
  const at::Tensor of_values = scales.repeat_interleave(32, 1).contiguous();
  at::Tensor result = at::empty_like(weight);
  const auto count = static_cast<size_t>(weight.numel());
  nearest_q4_0_values({weight.const_data_ptr<float>(), count},
                      {static_cast<const Float16*>(of_values.const_data_ptr()), count},
                      {result.mutable_data_ptr<float>(), count});
  return result;
}

}  // namespace qat::testing
