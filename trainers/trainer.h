// The training loop's one step.
#pragma once

#include <cstdint>

#include "fake_quant/fake_quant_set.h"
#include "model/gemma4_model.h"
#include "trainers/adamw.h"
#include "trainers/lora.h"
#include "trainers/objective.h"
#include "trainers/train_config.h"
#include "trainers/training_data.h"

namespace qat {

struct StepReport {
  int64_t step = 0;  // optimizer steps done, this one included
  double loss = 0;   // mean over the trained tokens
  double learning_rate = 0;
  double gradient_norm = 0;  // of the mean loss, before clipping
  int64_t tokens = 0;
  int64_t trained_tokens = 0;
};

class Trainer {
 public:
  // All parts must outlive the trainer.
  Trainer(const TrainConfig& config, Gemma4Model& model, FakeQuantSet& fake_quant, const Objective& objective,
          TrainingData& data, Optimizer& optimizer, LoraAdapters& lora);

  // Accumulates gradients over gradient_accumulation batches and updates the weights. Throws Error before the update if
  // the loss or the gradient norm is not finite, and after the first quantized step if a quantizer was never used.
  StepReport step();

 private:
  void accumulate(StepReport& report);
  void check_finite(const char* what, double value, int64_t step) const;

  const TrainConfig& config_;
  Gemma4Model& model_;
  FakeQuantSet& fake_quant_;
  const Objective& objective_;
  TrainingData& data_;
  Optimizer& optimizer_;
  LoraAdapters& lora_;
  GradientSum gradients_;
  QuantizedParts checked_parts_ = QuantizedParts::none();  // whose quantizers were all seen to be used
};

}  // namespace qat
