#include "trainers/teacher.h"

#include <ATen/core/grad_mode.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "gemma4/model_folder.h"
#include "trainers/compute_settings.h"
#include "trainers/teacher_cache.h"
#include "trainers/teacher_identity.h"

namespace qat {

namespace {

class LiveTeacher final : public Teacher {
 public:
  LiveTeacher(std::unique_ptr<const ModelFolder> folder, at::ScalarType dtype, at::Device device)
      : folder_(std::move(folder)),
        model_(folder_->config(), dtype, readable_in_file(folder_->table(), dtype), device) {
    load_weights(model_, folder_->tensors());
  }

  at::Tensor trained_states(const TrainingBatch& batch) const override {
    const at::NoGradGuard no_grad;
    return model_.hidden_states(batch.input).index_select(0, batch.trained_positions());
  }

  ChunkedLogits logits(const at::Tensor& states) const override {
    return {model_.head(), model_.config().final_logit_softcap, states};
  }

 private:
  std::unique_ptr<const ModelFolder> folder_;
  Gemma4Model model_;
};

// States from the cache; of the teacher's folder only the head is used.
class CachedTeacher final : public Teacher {
 public:
  CachedTeacher(std::unique_ptr<const ModelFolder> folder, std::unique_ptr<const TeacherCache> cache,
                at::ScalarType dtype, at::Device device)
      : folder_(std::move(folder)),
        cache_(std::move(cache)),
        head_(load_head(folder_->table(), folder_->tensors(), dtype, device)) {}

  at::Tensor trained_states(const TrainingBatch& batch) const override { return cache_->states(batch); }

  ChunkedLogits logits(const at::Tensor& states) const override {
    return {head_, folder_->config().final_logit_softcap, states};
  }

 private:
  std::unique_ptr<const ModelFolder> folder_;
  std::unique_ptr<const TeacherCache> cache_;
  Projection head_;
};

}  // namespace

std::unique_ptr<const ModelFolder> open_teacher(const TrainConfig& config, const Gemma4Config& student) {
  auto teacher = std::make_unique<const ModelFolder>(config.teacher.empty() ? config.model : config.teacher);
  if (teacher->config().vocabulary_size != student.vocabulary_size) {
    fail_usage("teacher: ", teacher->path().string(), " has ", teacher->config().vocabulary_size, " tokens, the model ",
               student.vocabulary_size);
  }
  return teacher;
}

std::unique_ptr<Teacher> run_teacher(std::unique_ptr<const ModelFolder> folder, at::ScalarType dtype,
                                     at::Device device) {
  return std::make_unique<LiveTeacher>(std::move(folder), dtype, device);
}

std::unique_ptr<Teacher> make_teacher(const TrainConfig& config, const Gemma4Config& student,
                                      const TrainingData& data) {
  auto folder = open_teacher(config, student);
  const at::ScalarType dtype = compute_type(config);
  const at::Device device = compute_device(config);
  if (config.distillation.cache.empty()) return run_teacher(std::move(folder), dtype, device);
  if (!std::filesystem::is_regular_file(config.distillation.cache)) {
    fail_usage("distillation.cache: there is no file ", config.distillation.cache,
               "; write it with gemma-qat cache-teacher CONFIG (and the same key=value)");
  }
  auto cache = std::make_unique<const TeacherCache>(config.distillation.cache, teacher_identity(config, *folder, data),
                                                    data.source(), folder->config().hidden_size, dtype);
  return std::make_unique<CachedTeacher>(std::move(folder), std::move(cache), dtype, device);
}

}  // namespace qat
