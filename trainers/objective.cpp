#include "trainers/objective.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/nonzero.h>

#include "core/error.h"
#include "gemma4/model_folder.h"
#include "model/chunked_head.h"

namespace qat {

namespace {

class CrossEntropy final : public Objective {
 public:
  at::Tensor loss_sum(const Gemma4Model& model, const at::Tensor& hidden, const TrainingBatch& batch) const override {
    return cross_entropy_sum(model, hidden, batch.targets);
  }
};

// KL(teacher || model) at the trained tokens; the teacher is a model of its own that runs without fake quantization.
class ForwardKl final : public Objective {
 public:
  ForwardKl(const std::string& folder, const Gemma4Model& student)
      : folder_(folder), teacher_(folder_.config(), student.dtype()) {
    if (folder_.config().vocabulary_size != student.config().vocabulary_size) {
      fail_usage("teacher: ", folder, " has ", folder_.config().vocabulary_size, " tokens, the model ",
                 student.config().vocabulary_size);
    }
    load_weights(teacher_, folder_.tensors());
  }

  at::Tensor loss_sum(const Gemma4Model& model, const at::Tensor& hidden, const TrainingBatch& batch) const override {
    const at::Tensor counted = at::nonzero(batch.targets >= 0).flatten();
    const at::Tensor wanted = teacher_states(batch, counted);
    const LogitsLossFunction loss = [&](const at::Tensor& logits, int64_t first, bool gradient_is_wanted) {
      const at::Tensor log_q = at::log_softmax(teacher_.logits(wanted.narrow(0, first, logits.size(0))), -1);
      const at::Tensor log_p = at::log_softmax(logits, -1);
      const at::Tensor q = log_q.exp();
      LogitsLoss result{(q * (log_q - log_p)).sum(), {}};
      if (gradient_is_wanted) result.gradient = log_p.exp().sub_(q);
      return result;
    };
    return loss_sum_through_head(model, hidden.index_select(0, counted), loss);
  }

 private:
  at::Tensor teacher_states(const TrainingBatch& batch, const at::Tensor& counted) const {
    const at::NoGradGuard no_grad;
    return teacher_.hidden_states(batch.input).index_select(0, counted);
  }

  ModelFolder folder_;
  Gemma4Model teacher_;
};

}  // namespace

std::unique_ptr<Objective> make_objective(const TrainConfig& config, const Gemma4Model& model) {
  if (!config.distills()) return std::make_unique<CrossEntropy>();
  return std::make_unique<ForwardKl>(config.teacher.empty() ? config.model : config.teacher, model);
}

}  // namespace qat
