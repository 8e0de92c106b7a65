// What post-training quantization knows of a linear's input: how its features occur together.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/projection.h"

namespace qat {

// Adds up the second moments of the activations that pass by, which stay as they are.
class InputStatistics final : public ActivationTransform {
 public:
  at::Tensor apply(const at::Tensor& activation) override;

  int64_t count() const { return count_; }
  // Mean of x xᵀ over the rows that passed: fp32 [features, features]. Some row must have passed.
  at::Tensor second_moments() const;

 private:
  at::Tensor sum_;  // fp32 [features, features]
  int64_t count_ = 0;
};

// Squared error of a linear's output, summed over outputs and averaged over rows of such input: trace(D M Dᵀ) of a
// change `difference` [out, in] of its weight and second moments [in, in].
double output_error(const at::Tensor& difference, const at::Tensor& second_moments);

}  // namespace qat
