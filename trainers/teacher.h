// The model that is distilled.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>

#include "model/gemma4_model.h"
#include "trainers/train_config.h"
#include "trainers/training_data.h"

namespace qat {

class Teacher {
 public:
  virtual ~Teacher() = default;
  // Its final hidden states [trained tokens, hidden] where the batch is trained, in the batch's order, without
  // autograd.
  virtual at::Tensor trained_states(const TrainingBatch& batch) const = 0;
  // Logits fp32 [n, vocabulary] of such rows; callers pass few at a time.
  virtual at::Tensor logits(const at::Tensor& states) const = 0;
};

// The folder of the configuration's teacher: the model the run starts from, unless another is named.
std::filesystem::path teacher_folder(const TrainConfig& config);

// A model of its own, in the student's dtype, that runs without fake quantization. Throws Error (usage) if its
// vocabulary is not the student's.
std::unique_ptr<Teacher> run_teacher(const std::filesystem::path& folder, const Gemma4Model& student);

}  // namespace qat
