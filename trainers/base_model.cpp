#include "trainers/base_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <memory>

#include "core/error.h"
#include "fake_quant/block_values.h"
#include "fake_quant/packed_master.h"
#include "fake_quant/tensor_values.h"
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

at::Tensor as_tensor(std::span<const Float16> scales) {
  const at::Tensor tensor = at::empty({static_cast<int64_t>(scales.size())}, at::kHalf);
  std::copy(scales.begin(), scales.end(), values_of<Float16>(tensor).begin());
  return tensor;
}

Keep keep_of(const QuantizationConfig& config) {
  if (config.keep == "codes") return Keep::Codes;
  return config.keep == "nothing" ? Keep::Nothing : Keep::Values;
}

}  // namespace

BaseModel::BaseModel(const TrainConfig& config)
    : path_(config.model),
      config_(Gemma4Config::load(config.model)),
      table_(config_),
      packs_base_(config.packs_base()) {
  if (config.initialize == "pretrained") folder_.emplace(path_);
  plan_ = resolve_plan(config, table_, folder_);
  if (!plan_) return;
  row_method_ = row_scale_method(config.quantization);
  block_method_ = block_scale_method(config.quantization);
  keep_ = keep_of(config.quantization);
  for (const auto& [name, weight] : plan_->weights) {
    if (weight.scheme == Scheme::Q6_K && !config.computes_on_cpu()) {
      fail_usage("plan: \"", plan_->name, "\" gives ", name, " ", scheme(weight.scheme).name,
                 ", which is computed on the CPU only; with device = ", config.device, " use a plan without it (q4_0, ",
                 "q4_0-q8-tables)");
    }
    const bool needs_blocks = weight.scales == ScaleSource::Stored && !scheme(weight.scheme).has_row_scales();
    if (needs_blocks && block_method_ == BlockScaleMethod::Rule && stored_scales(name).empty()) {
      fail(path_.string(), ": the plan \"", plan_->name, "\" wants stored scales of ", name,
           ", and this folder has none");
    }
  }
}

bool BaseModel::can_be_packed(const WeightSpec& weight) const {
  return folder_ && plan_ && weight.layer && is_matrix(weight.role) &&
         scheme(plan_->of(weight.name).scheme).is_quantized();
}

WeightChoice BaseModel::without_memory(const std::vector<std::string>& unchanged, at::ScalarType dtype) const {
  return [this, in_file = readable_in_file(unchanged, dtype)](const WeightSpec& weight) {
    return packs(weight) || in_file(weight);
  };
}

WeightChoice BaseModel::readable_in_file(const std::vector<std::string>& unchanged, at::ScalarType dtype) const {
  return [this, unchanged, readable = qat::readable_in_file(table_, dtype)](const WeightSpec& weight) {
    return folder_ && !packs(weight) && readable(weight) && folder_->masters().of(weight).type == ElementType::BF16 &&
           std::find(unchanged.begin(), unchanged.end(), weight.name) != unchanged.end();
  };
}

void BaseModel::fill(Gemma4Model& model, uint64_t seed,
                     const std::function<void(const WeightSpec&, Projection&)>& filled) const {
  if (folder_) {
    load_weights(model, folder_->tensors(), [&](const WeightSpec& weight, Projection& projection) {
      if (packs(weight)) pack(weight, projection, model.dtype());
      if (filled) filled(weight, projection);
    });
  } else {
    initialize_weights(model, seed, filled);
  }
}

void BaseModel::pack(const WeightSpec& weight, Projection& projection, at::ScalarType dtype) const {
  const at::NoGradGuard no_grad;
  const WeightPlan& rule = plan_->of(weight.name);
  const at::Tensor master = as_bfloat16(projection.weight);
  if (scheme(rule.scheme).has_row_scales()) {
    RowWeightFakeQuantizer quantizer(weight, rule.scheme, rule.one_scale_per_row);
    const auto known = folder_->plan() ? scales_of_folder().rows(weight.name) : std::span<const float>();
    if (known.empty()) {
      quantizer.find_scales(master, row_method_);
    } else {
      quantizer.give_scales(known);
    }
    projection.stored_master =
        std::make_shared<const PackedMaster>(master, rule.scheme, quantizer.stored_scales(), weight.scale_width, dtype);
  } else {
    at::Tensor scales;
    if (rule.scales == ScaleSource::Stored) {
      const auto brought = stored_scales(weight.name);
      const bool searches = block_method_ == BlockScaleMethod::Searched || brought.empty();
      scales = searches ? searched_block_scales(master) : as_tensor(brought);
    }
    projection.stored_master = std::make_shared<const PackedMaster>(master, rule.scheme, scales, dtype);
  }
  projection.weight = at::Tensor();
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
    return values_of<const float>(scales);
  };
  known.blocks = [&blocks](const std::string& weight) {
    const at::Tensor& scales = blocks.at(weight);
    return values_of<const Float16>(scales);
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

std::vector<std::string> unchanged_weights(const TrainConfig& config, const BaseModel& base,
                                           const std::vector<std::string>& frozen) {
  if (!config.trains_adapters()) return frozen;
  std::vector<std::string> all;
  for (const WeightSpec& weight : base.table().weights()) all.push_back(weight.name);
  return all;
}

}  // namespace qat
