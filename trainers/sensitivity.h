// What quantizing one part of a model alone does to its distributions.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "gemma4/quant_plan.h"
#include "model/gemma4_model.h"
#include "trainers/held_out.h"

namespace qat {

// The weights of one role; of the MLPs that are twice as wide, where a plan treats those apart.
struct ModelPart {
  WeightRole role;
  bool double_wide = false;

  bool holds(const WeightSpec& weight) const { return weight.role == role && weight.double_wide == double_wide; }
  std::string name() const;  // "mlp_down", "mlp_down, double wide"
};

// The parts that a plan quantizes, in the order of the forward pass.
std::vector<ModelPart> quantized_parts(const WeightTable& table, const ResolvedPlan& plan);

class Sensitivity {
 public:
  // Runs the model as it stands, without fake quantizers, on the batches, at least one. Both must outlive this.
  Sensitivity(Gemma4Model& model, const std::vector<TrainingBatch>& batches);

  // Mean KL(model as it was || quantized) per counted token, in nats, with those weights quantized for which `chosen`
  // holds, under searched scales; activations stay whole. Afterwards the model is as before. Throws Error if Ctrl-C
  // came.
  double divergence(const ResolvedPlan& plan, const std::function<bool(const WeightSpec&)>& chosen);
  // The same with the plan's q8_0 cache alone.
  double cache_divergence(const ResolvedPlan& plan);

 private:
  double measure(const ResolvedPlan& partial);

  Gemma4Model& model_;
  const std::vector<TrainingBatch>& batches_;
  ProcessGroup alone_;
  ReferenceStates reference_;
};

}  // namespace qat
