// LoRA through the weight slot: what quantizer, GEMM and checkpoint see of a frozen weight and its adapter.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/projection.h"

namespace qat {

class LoraDelta final : public WeightDelta {
 public:
  // `a` [rank, in] and `b` [out, rank]: fp32 leaves on the master's device, the only ones that get a gradient.
  LoraDelta(at::Tensor a, at::Tensor b, float scaling);

  // Whether the merged value stays until changed(), as at first, or is computed at every use.
  void keep_merged(bool wanted) {
    keeps_merged_ = wanted;
    changed();
  }

  // bf16(master + scaling * B A) in the master's dtype, straight-through with respect to the rounding. In one
  // order of additions, so that any device and number of threads gives the same bits.
  at::Tensor add_to(const at::Tensor& master) override;

  // How much each rank component counts from now on, fp32 [rank]; at first all count once.
  void count_components(const at::Tensor& counts);
  // To call after A or B changed.
  void changed() { merged_ = at::Tensor(); }

 private:
  at::Tensor a_;
  at::Tensor b_;
  float scaling_;
  at::Tensor counts_;
  bool keeps_merged_ = true;
  at::Tensor merged_;
};

}  // namespace qat
