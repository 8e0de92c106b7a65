#include "trainers/trainer.h"

#include <cmath>

#include "core/error.h"
#include "trainers/schedule.h"

namespace qat {

Trainer::Trainer(const TrainConfig& config, Gemma4Model& model, FakeQuantSet& fake_quant, const Objective& objective,
                 TrainingData& data, Optimizer& optimizer, LoraAdapters& lora)
    : config_(config),
      model_(model),
      fake_quant_(fake_quant),
      objective_(objective),
      data_(data),
      optimizer_(optimizer),
      lora_(lora),
      gradients_(optimizer.weights()) {}

StepReport Trainer::step() {
  StepReport report;
  const int64_t done = optimizer_.steps_done();
  report.step = done + 1;
  report.learning_rate = learning_rate_at(config_.optimizer, done, config_.steps);
  const QuantizedParts parts = quantized_parts_at(config_.quantization, done);
  fake_quant_.enable(parts);
  if (lora_.drop_components(done)) fake_quant_.changed();

  gradients_.clear();
  accumulate(report);
  check_finite("loss", report.loss, report.step);
  const auto tokens = static_cast<double>(report.trained_tokens);
  report.gradient_norm = gradients_.norm() / tokens;
  check_finite("gradient norm", report.gradient_norm, report.step);

  const double clip_norm = config_.optimizer.clip_norm;
  const double clipping = clip_norm > 0 && report.gradient_norm > clip_norm ? report.gradient_norm / clip_norm : 1;
  optimizer_.step(gradients_.sums(), tokens * clipping, report.learning_rate,
                  scale_learning_rate_at(config_, done));
  gradients_.clear();
  lora_.changed();
  fake_quant_.changed();

  if (parts != checked_parts_) fake_quant_.check_all_fired();
  checked_parts_ = parts;
  return report;
}

void Trainer::accumulate(StepReport& report) {
  double loss_sum = 0;
  for (int64_t pass = 0; pass < config_.gradient_accumulation; ++pass) {
    const TrainingBatch batch = data_.next();
    const at::Tensor hidden = model_.hidden_states(batch.input);
    const at::Tensor loss = objective_.loss_sum(model_, hidden, batch);
    loss.backward();
    gradients_.collect();
    loss_sum += loss.item<double>();
    report.tokens += batch.tokens();
    report.trained_tokens += batch.trained_tokens;
  }
  report.loss = loss_sum / static_cast<double>(report.trained_tokens);
}

void Trainer::check_finite(const char* what, double value, int64_t step) const {
  if (std::isfinite(value)) return;
  fail("step ", step, ": the ", what, " is not finite (", value, "); the weights were not updated. Lower ",
       "optimizer.learning_rate (now ", config_.optimizer.learning_rate, "), or look at the data near epoch ",
       data_.position().epoch, ", row ", data_.position().row);
}

}  // namespace qat
