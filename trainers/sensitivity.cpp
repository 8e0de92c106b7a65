#include "trainers/sensitivity.h"

#include <algorithm>

#include "core/error.h"
#include "fake_quant/prepare.h"

namespace qat {

namespace {

// The plan of the chosen weights; the others, activations and the cache are left whole.
ResolvedPlan part_of(const ResolvedPlan& plan, const WeightTable& table,
                     const std::function<bool(const WeightSpec&)>& chosen) {
  ResolvedPlan partial = plan;
  partial.key_value_cache.reset();
  for (const WeightSpec& weight : table.weights()) {
    WeightPlan& rule = partial.weights.at(weight.name);
    if (!chosen(weight)) rule.scheme = is_matrix(weight.role) ? Scheme::BF16 : Scheme::F32;
    rule.scales = scheme(rule.scheme).allows_stored_scales ? ScaleSource::Stored : ScaleSource::Rule;
    rule.quantizes_input = rule.quantizes_output = false;
  }
  return partial;
}

void detach(Gemma4Model& model) {
  for (const WeightSpec& weight : model.weights().weights()) {
    if (is_matrix(weight.role)) model.projection(weight.name).weight_transform = nullptr;
  }
  for (const LayerConfig& layer : model.config().layers) {
    if (layer.key_value_donor) continue;
    model.key_transform(layer.index) = nullptr;
    model.value_transform(layer.index) = nullptr;
  }
}

}  // namespace

std::string ModelPart::name() const { return std::string(role_name(role)) + (double_wide ? ", double wide" : ""); }

std::vector<ModelPart> quantized_parts(const WeightTable& table, const ResolvedPlan& plan) {
  std::vector<ModelPart> parts;
  for (const WeightSpec& weight : table.weights()) {
    const bool is_known =
        std::any_of(parts.begin(), parts.end(), [&](const ModelPart& part) { return part.holds(weight); });
    if (!is_known && scheme(plan.of(weight.name).scheme).is_quantized()) {
      parts.push_back({weight.role, weight.double_wide});
    }
  }
  return parts;
}

Sensitivity::Sensitivity(Gemma4Model& model, const std::vector<TrainingBatch>& batches)
    : model_(model), batches_(batches), reference_(model, batches, /*keeps_head=*/true, alone_) {
  QAT_CHECK(!batches.empty());
}

double Sensitivity::divergence(const ResolvedPlan& plan, const std::function<bool(const WeightSpec&)>& chosen) {
  return measure(part_of(plan, model_.weights(), chosen));
}

double Sensitivity::cache_divergence(const ResolvedPlan& plan) {
  QAT_CHECK(plan.key_value_cache == Scheme::Q8_0);
  ResolvedPlan partial = part_of(plan, model_.weights(), [](const WeightSpec&) { return false; });
  partial.key_value_cache = plan.key_value_cache;
  return measure(partial);
}

double Sensitivity::measure(const ResolvedPlan& partial) {
  KnownScales known;
  known.row_method = RowScaleMethod::Searched;
  known.block_method = BlockScaleMethod::Searched;
  const FakeQuantSet quantizers = prepare(model_, partial, known);
  const auto result = evaluate_held_out(model_, batches_, &reference_, alone_);
  detach(model_);
  if (!result) fail("interrupted; nothing was written");
  return *result->kl;
}

}  // namespace qat
