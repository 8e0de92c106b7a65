// BF16 tensors of the CPU as the project's own numbers.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/float_types.h"

namespace qat {

inline bool is_bfloat16_on_cpu(const at::Tensor& x) { return x.is_cpu() && x.scalar_type() == at::kBFloat16; }

inline const BFloat16* bfloat16_data(const at::Tensor& x) {
  return reinterpret_cast<const BFloat16*>(x.const_data_ptr<at::BFloat16>());
}
inline BFloat16* mutable_bfloat16_data(const at::Tensor& x) {
  return reinterpret_cast<BFloat16*>(x.mutable_data_ptr<at::BFloat16>());
}

}  // namespace qat
