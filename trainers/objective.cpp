#include "trainers/objective.h"

#include "model/chunked_head.h"
#include "trainers/distillation.h"
#include "trainers/teacher.h"

namespace qat {

namespace {

class CrossEntropy final : public Objective {
 public:
  at::Tensor loss_sum(const Gemma4Model& model, const at::Tensor& hidden, const TrainingBatch& batch) const override {
    return cross_entropy_sum(model, hidden, batch.targets);
  }
};

}  // namespace

std::unique_ptr<Objective> make_objective(const TrainConfig& config, const Gemma4Config& model,
                                          const TrainingData& data) {
  if (!config.distills()) return std::make_unique<CrossEntropy>();
  return make_distillation(config, make_teacher(config, model, data));
}

}  // namespace qat
