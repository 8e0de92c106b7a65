// Optimizers that keep less per weight than AdamW's twelve bytes: smaller moments, or no masters beside the parameters.
#pragma once

#include "trainers/adamw.h"
#include "trainers/moments.h"
#include "trainers/optimizer.h"

namespace qat {

class LeanOptimizer final : public Optimizer {
 public:
  // options.kind names the moments. options.masters "bfloat16": the parameter itself is the master, and updates are
  // rounded to it stochastically. Scales and adapters are AdamW's, in fp32, whatever the options say.
  LeanOptimizer(std::vector<TrainedWeight> weights, const OptimizerConfig& options, uint64_t seed);

  //   master = master (1 - rate decay) - rate direction (Moments)
  void start_update(const UpdateRule& rule) override;
  void update_weight(size_t index, const at::Tensor& gradient) override;
  std::vector<StateArray> state_arrays() const override;
  void restored(int64_t steps_done) override;

 private:
  void move(size_t index, const at::Tensor& direction, double rate, const ElementRandom& random);

  OptimizerConfig options_;
  uint64_t seed_;
  std::vector<size_t> lean_, exact_;  // indices of rounded weights, and of scales and adapters
  std::vector<size_t> place_;         // of each weight in one of the two
  std::unique_ptr<Moments> moments_;  // of weights
  std::vector<at::Tensor> masters_;   // of weights; empty where parameters are the masters
  AdamW floats_;
};

}  // namespace qat
