#include "trainers/teacher.h"

#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "gemma4/model_folder.h"

namespace qat {

namespace {

class LiveTeacher final : public Teacher {
 public:
  LiveTeacher(const ModelFolder& folder, at::ScalarType dtype) : model_(folder.config(), dtype) {
    load_weights(model_, folder.tensors());
  }

  at::Tensor trained_states(const TrainingBatch& batch) const override {
    const at::NoGradGuard no_grad;
    return model_.hidden_states(batch.input).index_select(0, batch.trained_positions());
  }

  at::Tensor logits(const at::Tensor& states) const override { return model_.logits(states); }

 private:
  Gemma4Model model_;
};

}  // namespace

std::filesystem::path teacher_folder(const TrainConfig& config) {
  return config.teacher.empty() ? config.model : config.teacher;
}

std::unique_ptr<Teacher> run_teacher(const std::filesystem::path& folder, const Gemma4Model& student) {
  const ModelFolder teacher(folder);
  if (teacher.config().vocabulary_size != student.config().vocabulary_size) {
    fail_usage("teacher: ", folder.string(), " has ", teacher.config().vocabulary_size, " tokens, the model ",
               student.config().vocabulary_size);
  }
  return std::make_unique<LiveTeacher>(teacher, student.dtype());
}

}  // namespace qat
