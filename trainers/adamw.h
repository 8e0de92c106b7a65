// AdamW with FP32 masters. The model's parameters are always the BF16-rounded masters, so that fake quantization,
// checkpoint and export start from the same numbers.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "fake_quant/fake_quant_set.h"
#include "model/gemma4_model.h"
#include "trainers/train_config.h"

namespace qat {

// A weight that learns.
struct TrainedWeight {
  std::string name;          // WeightTable's, or that of a scale or of a matrix of an adapter
  at::Tensor parameter;      // a leaf, BF16 or float, requires_grad set
  bool decays = false;       // weight decay applies: matrices and tables only
  bool is_scale = false;     // of a fake quantizer: an fp32 number that is not rounded, with a learning rate of its own
  bool keeps_float = false;  // of an adapter: an fp32 number that is not rounded; the merged weight is
};

// Rounds every parameter to BF16 numbers, and returns those whose weight is not in `frozen`, with requires_grad set.
std::vector<TrainedWeight> select_trained_weights(Gemma4Model& model, const std::vector<std::string>& frozen);

// The scales of a set of quantizers, with requires_grad set; not those of the rows of `frozen` weights.
std::vector<TrainedWeight> select_trained_scales(FakeQuantSet& fake_quant, const std::vector<std::string>& frozen);

// FP32 sums of the gradients of one optimizer step.
class GradientSum {
 public:
  explicit GradientSum(const std::vector<TrainedWeight>& weights);

  // To call after each backward pass. BF16 gradients are added to the sums and dropped; float gradients are left to
  // autograd, which adds them in place.
  void collect();
  // The sums of all passes, one per weight; zeros where no gradient arrived. Valid until clear().
  const std::vector<at::Tensor>& sums();
  // Global L2 norm of sums(): fp32 per weight, double over weights.
  double norm();
  void clear();

 private:
  std::vector<at::Tensor> parameters_;
  std::vector<at::Tensor> sums_;
  bool complete_ = false;
};

class AdamW {
 public:
  AdamW(std::vector<TrainedWeight> weights, const OptimizerConfig& options);

  // One update with gradients / divisor (gradients are divided in place), then parameters = bf16(masters); scales have
  // a rate of their own. Parameters of scales and adapters = masters.
  //   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
  //   master = master (1 - rate decay) - rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)
  void step(const std::vector<at::Tensor>& gradients, double divisor, double learning_rate, double scale_learning_rate);

  // What a saved state holds; one FP32 tensor per weight.
  struct State {
    std::vector<at::Tensor> masters;
    std::vector<at::Tensor> first_moments;
    std::vector<at::Tensor> second_moments;
  };
  const std::vector<TrainedWeight>& weights() const { return weights_; }
  const State& state() const { return state_; }
  int64_t steps_done() const { return steps_done_; }
  int64_t trained_values() const;

  // To call after state() was filled from a file: parameters follow the masters.
  void restored(int64_t steps_done);

 private:
  void write_parameters();

  std::vector<TrainedWeight> weights_;
  OptimizerConfig options_;
  State state_;
  int64_t steps_done_ = 0;
};

}  // namespace qat
