// AdamW with FP32 masters. The model's parameters are always the BF16-rounded masters, so that fake quantization,
// checkpoint and export start from the same numbers.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "fake_quant/fake_quant_set.h"
#include "model/gemma4_model.h"
#include "trainers/optimizer.h"

namespace qat {

// Rounds every float parameter to BF16 numbers, and returns those whose weight is not in `frozen`, with requires_grad
// set.
std::vector<TrainedWeight> select_trained_weights(Gemma4Model& model, const std::vector<std::string>& frozen);

// The scales of a set of quantizers, with requires_grad set; not those of the rows of `frozen` weights.
std::vector<TrainedWeight> select_trained_scales(FakeQuantSet& fake_quant, const std::vector<std::string>& frozen);

// Sums of the gradients of one optimizer step.
class GradientSum {
 public:
  explicit GradientSum(const std::vector<TrainedWeight>& weights);

  // To call after each backward pass. BF16 gradients are taken as they are, from the second pass on they are added in
  // fp32; float gradients are left to autograd, which adds them in place.
  void collect();
  // Of one weight: the sum so far with what waits in autograd, fp32 or BF16, no longer kept here; undefined if no
  // gradient arrived.
  at::Tensor take(size_t index);
  // The sums of all passes, one per weight, fp32 or BF16; zeros where no gradient arrived. Valid until clear().
  const std::vector<at::Tensor>& sums();
  // Global L2 norm of sums().
  double norm();
  void clear();

 private:
  std::vector<at::Tensor> parameters_;
  std::vector<at::Tensor> sums_;
  bool complete_ = false;
};

// Sum of the squares of a gradient: in pieces of 2^22 values, each one's root in fp32, squared and added in double.
double sum_of_squares(const at::Tensor& gradient);

class AdamW final : public Optimizer {
 public:
  AdamW(std::vector<TrainedWeight> weights, const OptimizerConfig& options);

  //   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
  //   master = master (1 - rate decay) - rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)
  // Then parameters = bf16(masters); those of scales and adapters = masters.
  void update_weight(size_t index, const at::Tensor& gradient) override;

  // One FP32 tensor per weight.
  struct State {
    std::vector<at::Tensor> masters;
    std::vector<at::Tensor> first_moments;
    std::vector<at::Tensor> second_moments;
  };
  const State& state() const { return state_; }
  std::vector<StateArray> state_arrays() const override;
  void restored(int64_t steps_done) override;

 private:
  OptimizerConfig options_;
  State state_;
};

}  // namespace qat
