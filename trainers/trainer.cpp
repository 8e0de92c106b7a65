#include "trainers/trainer.h"

#include <cmath>
#include <numeric>

#include "core/error.h"
#include "trainers/schedule.h"

namespace qat {

Trainer::Trainer(const TrainConfig& config, Gemma4Model& model, FakeQuantSet& fake_quant, const Objective& objective,
                 TrainingData& data, Optimizer& optimizer, LoraAdapters& lora, ProcessGroup& group)
    : config_(config),
      model_(model),
      fake_quant_(fake_quant),
      objective_(objective),
      data_(data),
      optimizer_(optimizer),
      lora_(lora),
      group_(group),
      passes_(config.gradient_accumulation / group.size()),
      gradients_(optimizer.weights(), group, config.shards_states(), passes_) {
  if (config.optimizer.step_in_backward) tap_.emplace(optimizer.weights());
}

StepReport Trainer::step() {
  StepReport report;
  const int64_t done = optimizer_.steps_done();
  report.step = done + 1;
  report.learning_rate = learning_rate_at(config_.optimizer, done, config_.steps);
  const QuantizedParts parts = quantized_parts_at(config_.quantization, done);
  fake_quant_.enable(parts);
  if (lora_.drop_components(done)) fake_quant_.learned_weights_changed();

  if (tap_) {
    update_in_backward(report);
  } else {
    update_after_backward(report);
  }
  lora_.changed();
  fake_quant_.learned_weights_changed();

  if (parts != checked_parts_) fake_quant_.check_all_fired();
  checked_parts_ = parts;
  return report;
}

void Trainer::update_after_backward(StepReport& report) {
  gradients_.start(report.step);
  for (int64_t pass = 0; pass < passes_; ++pass) {
    const at::Tensor loss = loss_sum(data_.next(), report);
    check_finite("loss", report.loss(), report.step);
    gradients_.backward(loss);
  }
  add_other_processes(report);
  report.gradient_norm = gradients_.norm() / static_cast<double>(report.trained_tokens);
  check_finite("gradient norm", report.gradient_norm, report.step);
  optimizer_.step(gradients_.sums(), rule(report));
  gradients_.clear();
}

void Trainer::update_in_backward(StepReport& report) {
  const TrainingBatch batch = data_.next();
  at::Tensor loss = loss_sum(batch, report);
  check_finite("loss", report.loss(), report.step);
  std::vector<double> squares(optimizer_.weights().size());
  const auto norm = [&] {
    return std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0)) / static_cast<double>(report.trained_tokens);
  };
  const auto measure = [&](size_t index, const at::Tensor& gradient) {
    squares[index] = sum_of_squares(gradient);
    check_finite("gradient of " + optimizer_.weights()[index].name, squares[index], report.step);
  };
  if (config_.optimizer.clip_norm > 0) {
    tap_->backward(loss, measure);
    report.gradient_norm = norm();
    StepReport again;
    loss = loss_sum(batch, again);
  }
  optimizer_.start_update(rule(report));
  tap_->backward(loss, [&](size_t index, const at::Tensor& gradient) {
    measure(index, gradient);
    optimizer_.update_weight(index, gradient);
  });
  report.gradient_norm = norm();
}

at::Tensor Trainer::loss_sum(const TrainingBatch& batch, StepReport& report) const {
  const at::Tensor loss = objective_.loss_sum(model_, model_.hidden_states(batch.input), batch);
  report.tokens += batch.tokens();
  report.trained_tokens += batch.trained_tokens;
  report.loss_sum += loss.item<double>();
  return loss;
}

void Trainer::add_other_processes(StepReport& report) const {
  const std::vector<double> totals = group_.sum(
      {report.loss_sum, static_cast<double>(report.tokens), static_cast<double>(report.trained_tokens)});
  report.loss_sum = totals[0];
  report.tokens = static_cast<int64_t>(totals[1]);
  report.trained_tokens = static_cast<int64_t>(totals[2]);
}

UpdateRule Trainer::rule(const StepReport& report) const {
  const double clip_norm = config_.optimizer.clip_norm;
  const double clipping = clip_norm > 0 && report.gradient_norm > clip_norm ? report.gradient_norm / clip_norm : 1;
  return {static_cast<double>(report.trained_tokens) * clipping, report.learning_rate,
          scale_learning_rate_at(config_, report.step - 1)};
}

void Trainer::check_finite(const std::string& what, double value, int64_t step) const {
  if (std::isfinite(value)) return;
  fail("step ", step, ": the ", what, " is not finite (", value, "); nothing of this step was saved. Lower ",
       "optimizer.learning_rate (now ", config_.optimizer.learning_rate, "), or look at the data near epoch ",
       data_.position().epoch, ", row ", data_.position().row);
}

}  // namespace qat
