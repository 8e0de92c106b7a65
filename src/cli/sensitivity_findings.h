// What quantizing each part of a model alone does, and the plan that follows from it for a size.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "eval/plan_search.h"
#include "gemma4/quant_plan.h"
#include "trainers/sensitivity.h"

namespace qat {

struct SchemeChoice {
  Scheme scheme;
  PartChoice figures;
};

struct PartFindings {
  ModelPart part;
  int64_t values = 0;
  std::vector<SchemeChoice> choices;
  size_t planned = 0;  // index of the plan's choice
};

struct PlanProposal {
  int64_t budget = 0;           // bytes
  std::vector<size_t> choices;  // by part
  QuantPlan plan;
  int64_t bytes = 0;
  double sum = 0;         // of the parts' divergences
  double divergence = 0;  // measured
};

struct SensitivityFindings {
  int64_t tokens = 0;
  int64_t other_bytes = 0;  // of weights that the plan leaves whole
  std::vector<PartFindings> parts;
  std::vector<double> layers;
  std::optional<double> cache;
  double whole = 0;  // all parts as the plan has them
  std::optional<PlanProposal> proposal;

  int64_t planned_bytes() const;
  double sum_of_parts() const;  // as planned
};

// What to measure. Without `schemes` a role could have those of the kind (blocks or rows) that the plan gives it.
struct SensitivityInputs {
  QuantPlan plan;
  std::vector<std::string> schemes;
  std::optional<int64_t> budget;
};

// Measures parts, layers and the whole, with progress, and the proposal if there is a budget. The model is as the
// others are compared with: filled, without fake quantizers. Throws Error (usage) for a plan without quantized weights
// and for a budget that is too small.
SensitivityFindings measure_sensitivity(Gemma4Model& model, const std::vector<TrainingBatch>& batches,
                                        const SensitivityInputs& inputs);

}  // namespace qat
