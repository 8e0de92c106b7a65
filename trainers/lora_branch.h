// LoRA beside a weight that stays as its codes are: the product gets s (x A^T) B^T added, and the weight no change.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/projection.h"

namespace qat {

class LoraBranch final : public SideProduct {
 public:
  // `a` [rank, in] and `b` [out, rank]: fp32 leaves, the only ones that get a gradient.
  LoraBranch(at::Tensor a, at::Tensor b, float scaling);

  // In fp32, rounded to the product's dtype once.
  at::Tensor add_to(const at::Tensor& x, const at::Tensor& product) override;

  // How much each rank component counts from now on, fp32 [rank]; at first all count once.
  void count_components(const at::Tensor& counts) { counts_ = counts; }

 private:
  at::Tensor a_;
  at::Tensor b_;
  double scaling_;
  at::Tensor counts_;
};

}  // namespace qat
