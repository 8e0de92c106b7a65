// What training minimises: a sum over the trained tokens of a batch, so that micro-batches of any size add up.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "model/gemma4_model.h"
#include "trainers/train_config.h"
#include "trainers/training_data.h"

namespace qat {

class Objective {
 public:
  virtual ~Objective() = default;
  // fp32 scalar, differentiable with respect to `hidden` [T, hidden] (the model's final hidden states) and the head.
  virtual at::Tensor loss_sum(const Gemma4Model& model, const at::Tensor& hidden, const TrainingBatch& batch) const = 0;
};

// Loads the teacher where there is one (see make_teacher()); `config` has its automatic values resolved.
std::unique_ptr<Objective> make_objective(const TrainConfig& config, const Gemma4Config& model,
                                          const TrainingData& data);

}  // namespace qat
