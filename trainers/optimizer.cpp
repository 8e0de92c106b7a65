#include "trainers/optimizer.h"

#include "core/error.h"
#include "trainers/adamw.h"
#include "trainers/lean_optimizer.h"

namespace qat {

void Optimizer::step(const std::vector<at::Tensor>& gradients, const UpdateRule& rule) {
  QAT_CHECK(gradients.size() == weights_.size());
  start_update(rule);
  for (size_t i = 0; i < gradients.size(); ++i) update_weight(i, gradients[i]);
}

void Optimizer::start_update(const UpdateRule& rule) {
  ++steps_done_;
  rule_ = rule;
}

int64_t Optimizer::trained_values() const {
  int64_t count = 0;
  for (const TrainedWeight& weight : weights_) count += weight.parameter.numel();
  return count;
}

void Optimizer::write_state(const ArrayFunction& write) const {
  for (const StateArray& array : state_arrays()) write(array);
}

void Optimizer::read_state(const ArrayFunction& read) {
  for (const StateArray& array : state_arrays()) read(array);
}

uint64_t Optimizer::state_bytes() const {
  uint64_t bytes = 0;
  for (const StateArray& array : state_arrays()) bytes += array.values.nbytes();
  return bytes;
}

std::unique_ptr<Optimizer> make_optimizer(std::vector<TrainedWeight> weights, const OptimizerConfig& options,
                                          uint64_t seed) {
  if (options.kind == "adamw" && options.masters == "float32") {
    return std::make_unique<AdamW>(std::move(weights), options);
  }
  return std::make_unique<LeanOptimizer>(std::move(weights), options, seed);
}

}  // namespace qat
