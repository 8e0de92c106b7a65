#include "trainers/distillation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/log_softmax.h>

#include <functional>

#include "core/error.h"
#include "model/chunked_head.h"
#include "trainers/divergence.h"

namespace qat {

namespace {

using Divergence =
    std::function<LogitsLoss(const at::Tensor& teacher, const at::Tensor& model, bool gradient_is_wanted)>;

Divergence divergence_of(const TrainConfig& config) {
  if (config.objective == "forward_kl") return forward_kl;
  if (config.objective == "reverse_kl") return reverse_kl;
  QAT_CHECK(config.objective == "jensen_shannon");
  const double beta = config.distillation.beta;
  return [beta](const at::Tensor& teacher, const at::Tensor& model, bool gradient_is_wanted) {
    return jensen_shannon(teacher, model, beta, gradient_is_wanted);
  };
}

void scale(LogitsLoss& loss, double of_sum, double of_gradient) {
  loss.sum.mul_(of_sum);
  if (loss.gradient.defined() && of_gradient != 1) loss.gradient.mul_(of_gradient);
}

class Distillation final : public Objective {
 public:
  Distillation(const TrainConfig& config, std::unique_ptr<Teacher> teacher)
      : config_(config.distillation), divergence_(divergence_of(config)), teacher_(std::move(teacher)) {}

  at::Tensor loss_sum(const Gemma4Model& model, const at::Tensor& hidden, const TrainingBatch& batch) const override {
    const at::Tensor trained = batch.trained_positions();
    const at::Tensor targets = batch.targets.index_select(0, trained);
    ChunkedLogits teacher = teacher_->logits(teacher_->trained_states(batch));
    const LogitsLossFunction loss = [&](const at::Tensor& logits, int64_t first, bool gradient_is_wanted) {
      const int64_t rows = logits.size(0);
      return loss_of_rows(logits, teacher.rows(first, rows), targets.narrow(0, first, rows), gradient_is_wanted);
    };
    return loss_sum_through_head(model, hidden.index_select(0, trained), loss);
  }

 private:
  LogitsLoss loss_of_rows(const at::Tensor& logits, const at::Tensor& teacher_logits, const at::Tensor& targets,
                          bool gradient_is_wanted) const {
    const double temperature = config_.temperature;
    const double share = config_.cross_entropy_share;
    const at::Tensor teacher = log_probabilities(teacher_logits);
    LogitsLoss result = divergence_(teacher, log_probabilities(logits), gradient_is_wanted);
    // Behind the divergence are logits / T: one T of the square goes into their derivative.
    scale(result, (1 - share) * temperature * temperature, (1 - share) * temperature);
    if (share == 0) return result;
    LogitsLoss of_data = cross_entropy_of_logits(logits, targets, gradient_is_wanted);
    result.sum.add_(of_data.sum, share);
    if (gradient_is_wanted) result.gradient.add_(of_data.gradient, share);
    return result;
  }

  at::Tensor log_probabilities(const at::Tensor& logits) const {
    return at::log_softmax(config_.temperature == 1 ? logits : logits / config_.temperature, -1);
  }

  DistillationConfig config_;
  Divergence divergence_;
  std::unique_ptr<Teacher> teacher_;
};

}  // namespace

std::unique_ptr<Objective> make_distillation(const TrainConfig& config, std::unique_ptr<Teacher> teacher) {
  return std::make_unique<Distillation>(config, std::move(teacher));
}

}  // namespace qat
