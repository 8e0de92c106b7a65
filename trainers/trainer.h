// The training loop's one step.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "fake_quant/fake_quant_set.h"
#include "model/gemma4_model.h"
#include "trainers/adamw.h"
#include "trainers/backward_tap.h"
#include "trainers/distributed.h"
#include "trainers/gradient_exchange.h"
#include "trainers/lora.h"
#include "trainers/objective.h"
#include "trainers/train_config.h"
#include "trainers/training_data.h"

namespace qat {

struct StepReport {
  int64_t step = 0;  // optimizer steps done, this one included
  double loss_sum = 0;  // of all processes, as everything here
  double learning_rate = 0;
  double gradient_norm = 0;  // of the mean loss, before clipping
  int64_t tokens = 0;
  int64_t trained_tokens = 0;

  // Mean over the trained tokens.
  double loss() const { return loss_sum / static_cast<double>(trained_tokens); }
};

class Trainer {
 public:
  // All parts must outlive the trainer.
  Trainer(const TrainConfig& config, Gemma4Model& model, FakeQuantSet& fake_quant, const Objective& objective,
          TrainingData& data, Optimizer& optimizer, LoraAdapters& lora, ProcessGroup& group);

  // Takes the gradients of gradient_accumulation batches, of which every process of the group computes its share, and
  // updates the weights. Throws Error if the loss or the gradient norm is not finite, and after the first quantized step
  // if a quantizer was never used.
  StepReport step();

 private:
  void update_after_backward(StepReport& report);
  // The same update, a weight at a time as soon as its gradient is complete, so that no two gradients of matrices
  // exist at once. Clipping needs the norm of all first, so a backward pass of its own.
  void update_in_backward(StepReport& report);

  // Counts the batch into the report, too.
  at::Tensor loss_sum(const TrainingBatch& batch, StepReport& report) const;
  void add_other_processes(StepReport& report) const;
  UpdateRule rule(const StepReport& report) const;
  void check_finite(const std::string& what, double value, int64_t step) const;

  const TrainConfig& config_;
  Gemma4Model& model_;
  FakeQuantSet& fake_quant_;
  const Objective& objective_;
  TrainingData& data_;
  Optimizer& optimizer_;
  LoraAdapters& lora_;
  ProcessGroup& group_;
  int64_t passes_;  // of this process in a step
  GradientExchange gradients_;
  std::optional<BackwardTap> tap_;                         // with optimizer.step_in_backward
  QuantizedParts checked_parts_ = QuantizedParts::none();  // whose quantizers were all seen to be used
};

}  // namespace qat
