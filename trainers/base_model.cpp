#include "trainers/base_model.h"

#include <algorithm>

#include "core/error.h"
#include "trainers/calibration.h"

namespace qat {

namespace {

std::optional<ResolvedPlan> resolve_plan(const TrainConfig& config, const WeightTable& table,
                                         const std::optional<ModelFolder>& folder) {
  if (!config.is_quantized()) return std::nullopt;
  if (config.plan == kPlanOfModel && (!folder || !folder->plan())) {
    fail_usage("plan: \"model\" is the plan of the model folder, and ", config.model, " has no quantization.json");
  }
  ResolvedPlan plan = config.plan == kPlanOfModel ? *folder->plan() : QuantPlan::load(config.plan).resolve(table);
  if (config.kv_cache == "none") plan.key_value_cache.reset();
  if (config.kv_cache == "q8_0") plan.key_value_cache = Scheme::Q8_0;
  if (config.kv_cache == "int8") plan.key_value_cache = Scheme::Int8;
  const bool frees_scales = block_scale_method(config.quantization) != BlockScaleMethod::Rule;
  for (auto& [name, weight] : plan.weights) {
    const QuantScheme& rule = scheme(weight.scheme);
    if (frees_scales && rule.allows_stored_scales && !rule.has_row_scales()) weight.scales = ScaleSource::Stored;
    if (config.activations != "plan") weight.quantizes_output = false;
    if (config.activations == "none") weight.quantizes_input = false;
  }
  return plan;
}

Keep keep_of(const QuantizationConfig& config) {
  if (config.keep == "codes") return Keep::Codes;
  return config.keep == "nothing" ? Keep::Nothing : Keep::Values;
}

}  // namespace

BaseModel::BaseModel(const TrainConfig& config)
    : path_(config.model), config_(Gemma4Config::load(config.model)), table_(config_) {
  if (config.initialize == "pretrained") folder_.emplace(path_);
  plan_ = resolve_plan(config, table_, folder_);
  if (!plan_) return;
  row_method_ = row_scale_method(config.quantization);
  block_method_ = block_scale_method(config.quantization);
  keep_ = keep_of(config.quantization);
  for (const auto& [name, weight] : plan_->weights) {
    const bool needs_blocks = weight.scales == ScaleSource::Stored && !scheme(weight.scheme).has_row_scales();
    if (needs_blocks && block_method_ == BlockScaleMethod::Rule && stored_scales(name).empty()) {
      fail(path_.string(), ": the plan \"", plan_->name, "\" wants stored scales of ", name,
           ", and this folder has none");
    }
  }
}

void BaseModel::fill(Gemma4Model& model, uint64_t seed) const {
  if (folder_) {
    load_weights(model, folder_->tensors());
  } else {
    initialize_weights(model, seed);
  }
}

FakeQuantSet BaseModel::attach_fake_quant(Gemma4Model& model) const {
  if (!plan_) return {};
  KnownScales known;
  if (folder_ && folder_->plan()) known = scales_of_folder();
  known.row_method = row_method_;
  known.block_method = block_method_;
  return attach(model, known);
}

FakeQuantSet BaseModel::attach_fake_quant(Gemma4Model& model, const FakeQuantSet& like) const {
  if (!plan_) return {};
  const StaticScales edges = like.static_scales();
  const auto rows = like.row_scales();
  const auto blocks = like.block_scales();
  KnownScales known;
  known.edges = &edges;
  known.rows = [&rows](const std::string& weight) {
    const at::Tensor& scales = rows.at(weight);
    return std::span<const float>(scales.const_data_ptr<float>(), static_cast<size_t>(scales.numel()));
  };
  known.blocks = [&blocks](const std::string& weight) {
    const at::Tensor& scales = blocks.at(weight);
    return std::span(static_cast<const Float16*>(scales.const_data_ptr()), static_cast<size_t>(scales.numel()));
  };
  return attach(model, known);
}

FakeQuantSet BaseModel::attach(Gemma4Model& model, const KnownScales& known) const {
  FakeQuantSet set = prepare(model, *plan_, known);
  set.keep(keep_);
  return set;
}

// Scales of rows belong to their scheme: where the run's plan has another one than the folder's, they are found anew.
KnownScales BaseModel::scales_of_folder() const {
  KnownScales known = KnownScales::of(*folder_);
  known.rows = [this](const std::string& weight) {
    const bool same = folder_->plan()->of(weight).scheme == plan_->of(weight).scheme;
    return same ? folder_->row_scales(weight) : std::span<const float>();
  };
  return known;
}

std::span<const Float16> BaseModel::stored_scales(const std::string& weight) const {
  if (!folder_ || !folder_->plan()) return {};
  return folder_->stored_scales(weight);
}

namespace {

bool holds_role(const std::vector<std::string>& roles, WeightRole role) {
  return std::find(roles.begin(), roles.end(), role_name(role)) != roles.end();
}

bool is_frozen(const TrainConfig& config, const BaseModel& base, const WeightSpec& weight) {
  if (!config.parameters.empty()) return !holds_role(config.parameters, weight.role);
  if (holds_role(config.freeze, weight.role)) return true;
  if (is_table(weight.role) && config.freeze_tables != "plan") return config.freeze_tables == "yes";
  return base.plan() != nullptr && base.plan()->of(weight.name).frozen;
}

void check_roles_exist(const TrainConfig& config, const BaseModel& base) {
  const auto& weights = base.table().weights();
  for (const std::string& role : config.parameters) {
    if (std::any_of(weights.begin(), weights.end(), [&](const auto& weight) { return role_name(weight.role) == role; }))
      continue;
    fail_usage("parameters: the model in ", config.model, " has no weight of role \"", role, "\"");
  }
}

}  // namespace

std::vector<std::string> frozen_weights(const TrainConfig& config, const BaseModel& base) {
  check_roles_exist(config, base);
  std::vector<std::string> frozen;
  for (const WeightSpec& weight : base.table().weights()) {
    if (is_frozen(config, base, weight)) frozen.push_back(weight.name);
  }
  if (frozen.size() == base.table().weights().size()) fail_usage("freeze: no weight is left to train");
  return frozen;
}

}  // namespace qat
