// The model that is distilled.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "gemma4/config.h"
#include "gemma4/model_folder.h"
#include "model/chunked_head.h"
#include "trainers/train_config.h"
#include "trainers/training_data.h"

namespace qat {

class Teacher {
 public:
  virtual ~Teacher() = default;
  // Its final hidden states [trained tokens, hidden] where the batch is trained, in the batch's order, without
  // autograd.
  virtual at::Tensor trained_states(const TrainingBatch& batch) const = 0;
  // Logits of such rows.
  virtual ChunkedLogits logits(const at::Tensor& states) const = 0;
};

// The folder of the configuration's teacher: the model the run starts from, unless another is named. Throws Error
// (usage) if its vocabulary is not the student's.
std::unique_ptr<const ModelFolder> open_teacher(const TrainConfig& config, const Gemma4Config& student);

// A model of its own that runs without fake quantization and, on the CPU, reads its weights in the folder's files where
// it can.
std::unique_ptr<Teacher> run_teacher(std::unique_ptr<const ModelFolder> folder, at::ScalarType dtype,
                                     at::Device device);

// The teacher of a configuration (automatic values resolved): run beside the student, or with distillation.cache its
// stored states and its mapped head. Throws Error as open_teacher() does, and (usage) if the cache belongs to something
// else.
std::unique_ptr<Teacher> make_teacher(const TrainConfig& config, const Gemma4Config& student, const TrainingData& data);

}  // namespace qat
