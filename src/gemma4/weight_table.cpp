#include "gemma4/weight_table.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "core/checked_math.h"
#include "core/error.h"

namespace qat {

namespace {

struct RoleRow {
  WeightRole role;
  std::string_view name;
  bool matrix;
};
constexpr std::array kRoles{
    RoleRow{WeightRole::TokenEmbedding, "token_embedding", true},
    RoleRow{WeightRole::OutputHead, "output_head", true},
    RoleRow{WeightRole::PerLayerEmbedding, "per_layer_embedding", true},
    RoleRow{WeightRole::PerLayerModelProjection, "per_layer_model_projection", true},
    RoleRow{WeightRole::AttentionQuery, "attention_query", true},
    RoleRow{WeightRole::AttentionKey, "attention_key", true},
    RoleRow{WeightRole::AttentionValue, "attention_value", true},
    RoleRow{WeightRole::AttentionOutput, "attention_output", true},
    RoleRow{WeightRole::MlpGate, "mlp_gate", true},
    RoleRow{WeightRole::MlpUp, "mlp_up", true},
    RoleRow{WeightRole::MlpDown, "mlp_down", true},
    RoleRow{WeightRole::PerLayerInputGate, "per_layer_input_gate", true},
    RoleRow{WeightRole::PerLayerProjection, "per_layer_projection", true},
    RoleRow{WeightRole::Router, "router", true},
    RoleRow{WeightRole::ExpertGateUp, "expert_gate_up", true},
    RoleRow{WeightRole::ExpertDown, "expert_down", true},
    RoleRow{WeightRole::Norm, "norm", false},
    RoleRow{WeightRole::LayerScalar, "layer_scalar", false},
    RoleRow{WeightRole::RouterScale, "router_scale", false},
    RoleRow{WeightRole::ExpertScale, "expert_scale", false},
};

const RoleRow& row_of(WeightRole role) {
  const auto* row = std::find_if(kRoles.begin(), kRoles.end(), [&](const RoleRow& r) { return r.role == role; });
  QAT_CHECK(row != kRoles.end());
  return *row;
}

}  // namespace

std::string_view role_name(WeightRole role) { return row_of(role).name; }
bool is_matrix(WeightRole role) { return row_of(role).matrix; }

bool is_table(WeightRole role) { return role == WeightRole::TokenEmbedding || role == WeightRole::PerLayerEmbedding; }

bool is_linear(WeightRole role) {
  switch (role) {
    case WeightRole::PerLayerModelProjection:
    case WeightRole::AttentionQuery:
    case WeightRole::AttentionKey:
    case WeightRole::AttentionValue:
    case WeightRole::AttentionOutput:
    case WeightRole::MlpGate:
    case WeightRole::MlpUp:
    case WeightRole::MlpDown:
    case WeightRole::PerLayerInputGate:
    case WeightRole::PerLayerProjection:
      return true;
    default:
      return false;
  }
}

std::optional<WeightRole> role_by_name(std::string_view name) {
  for (const RoleRow& row : kRoles) {
    if (row.name == name) return row.role;
  }
  return std::nullopt;
}

std::vector<std::string> role_names() {
  std::vector<std::string> names;
  for (const RoleRow& row : kRoles) names.emplace_back(row.name);
  return names;
}

int64_t WeightSpec::elements() const {
  const auto count = element_count(shape);
  QAT_CHECK(count.has_value());
  return *count;
}

std::string WeightSpec::module_name() const {
  static constexpr std::string_view kSuffix = ".weight";
  return name.ends_with(kSuffix) ? name.substr(0, name.size() - kSuffix.size()) : name;
}

std::string WeightSpec::input_name() const {
  switch (role) {
    case WeightRole::AttentionQuery:
    case WeightRole::AttentionKey:
    case WeightRole::AttentionValue:
    case WeightRole::MlpGate:
    case WeightRole::MlpUp:
      return name.substr(0, module_name().rfind('.'));
    default:
      return module_name();
  }
}

void WeightTable::add(std::string name, std::string gguf_name, std::vector<int64_t> shape, WeightRole role,
                      std::optional<int64_t> layer) {
  if (!element_count(shape)) fail("config.json: the shape of ", name, " overflows");
  WeightSpec spec{std::move(name), std::move(gguf_name), std::move(shape), role, layer};
  spec.scale_width = spec.columns();
  weights_.push_back(std::move(spec));
}

void WeightTable::add_layer(const Gemma4Config& config, const LayerConfig& layer) {
  const std::string hf = "layers." + std::to_string(layer.index) + ".";
  const std::string gguf = "blk." + std::to_string(layer.index) + ".";
  const int64_t hidden = config.hidden_size;
  const int64_t per_layer = config.per_layer_input_size;
  const auto put = [&](const char* name, const char* gguf_name, std::vector<int64_t> shape, WeightRole role) {
    add(hf + name, gguf + gguf_name, std::move(shape), role, layer.index);
  };
  const auto norm = [&](const char* name, const char* gguf_name, int64_t width) {
    put(name, gguf_name, {width}, WeightRole::Norm);
  };

  norm("input_layernorm.weight", "attn_norm.weight", hidden);
  put("self_attn.q_proj.weight", "attn_q.weight", {layer.query_width(), hidden}, WeightRole::AttentionQuery);
  norm("self_attn.q_norm.weight", "attn_q_norm.weight", layer.head_dim);
  if (layer.key_value_donor) {
    for (const char* name : {"self_attn.k_proj.weight", "self_attn.v_proj.weight", "self_attn.k_norm.weight"}) {
      redundant_.push_back(hf + name);
    }
    for (const char* name : {"attn_k.weight", "attn_v.weight", "attn_k_norm.weight"}) redundant_.push_back(gguf + name);
  } else {
    put("self_attn.k_proj.weight", "attn_k.weight", {layer.key_value_width(), hidden}, WeightRole::AttentionKey);
    norm("self_attn.k_norm.weight", "attn_k_norm.weight", layer.head_dim);
    if (!layer.value_is_key) {
      put("self_attn.v_proj.weight", "attn_v.weight", {layer.key_value_width(), hidden}, WeightRole::AttentionValue);
    }
  }
  put("self_attn.o_proj.weight", "attn_output.weight", {hidden, layer.query_width()}, WeightRole::AttentionOutput);
  norm("post_attention_layernorm.weight", "post_attention_norm.weight", hidden);

  norm("pre_feedforward_layernorm.weight", "ffn_norm.weight", hidden);
  put("mlp.gate_proj.weight", "ffn_gate.weight", {layer.intermediate_size, hidden}, WeightRole::MlpGate);
  put("mlp.up_proj.weight", "ffn_up.weight", {layer.intermediate_size, hidden}, WeightRole::MlpUp);
  put("mlp.down_proj.weight", "ffn_down.weight", {hidden, layer.intermediate_size}, WeightRole::MlpDown);
  for (size_t i = weights_.size() - 3; i < weights_.size(); ++i) weights_[i].double_wide = layer.double_wide_mlp;
  if (layer.has_experts) {
    const int64_t width = config.expert_intermediate_size;
    norm("post_feedforward_layernorm_1.weight", "post_ffw_norm_1.weight", hidden);
    put("router.proj.weight", "ffn_gate_inp.weight", {config.experts, hidden}, WeightRole::Router);
    put("router.scale", "ffn_gate_inp.scale", {hidden}, WeightRole::RouterScale);
    put("router.per_expert_scale", "ffn_down_exps.scale", {config.experts}, WeightRole::ExpertScale);
    norm("pre_feedforward_layernorm_2.weight", "pre_ffw_norm_2.weight", hidden);
    put("experts.gate_up_proj", "ffn_gate_up_exps.weight", {config.experts, 2 * width, hidden}, WeightRole::ExpertGateUp);
    put("experts.down_proj", "ffn_down_exps.weight", {config.experts, hidden, width}, WeightRole::ExpertDown);
    norm("post_feedforward_layernorm_2.weight", "post_ffw_norm_2.weight", hidden);
  }
  norm("post_feedforward_layernorm.weight", "post_ffw_norm.weight", hidden);

  if (config.has_per_layer_inputs()) {
    put("per_layer_input_gate.weight", "inp_gate.weight", {per_layer, hidden}, WeightRole::PerLayerInputGate);
    put("per_layer_projection.weight", "proj.weight", {hidden, per_layer}, WeightRole::PerLayerProjection);
    norm("post_per_layer_input_norm.weight", "post_norm.weight", hidden);
  }
  if (config.has_layer_scalar) {
    put("layer_scalar", "layer_output_scale.weight", {1}, WeightRole::LayerScalar);
  }
}

WeightTable::WeightTable(const Gemma4Config& config) {
  const int64_t hidden = config.hidden_size;
  add("embed_tokens.weight", "token_embd.weight", {config.vocabulary_size, hidden}, WeightRole::TokenEmbedding);
  if (config.has_per_layer_inputs()) {
    const int64_t width = config.layer_count() * config.per_layer_input_size;
    add("embed_tokens_per_layer.weight", "per_layer_token_embd.weight", {config.vocabulary_size, width},
        WeightRole::PerLayerEmbedding);
    weights_.back().scale_width = config.per_layer_input_size;
    add("per_layer_model_projection.weight", "per_layer_model_proj.weight", {width, hidden},
        WeightRole::PerLayerModelProjection);
    add("per_layer_projection_norm.weight", "per_layer_proj_norm.weight", {config.per_layer_input_size}, WeightRole::Norm);
  }
  for (const LayerConfig& layer : config.layers) add_layer(config, layer);
  add("norm.weight", "output_norm.weight", {hidden}, WeightRole::Norm);
  if (!config.tied_head) {
    add("lm_head.weight", "output.weight", {config.vocabulary_size, hidden}, WeightRole::OutputHead);
  }
}

const WeightSpec* WeightTable::find(std::string_view name) const {
  const auto found = std::find_if(weights_.begin(), weights_.end(), [&](const auto& w) { return w.name == name; });
  return found == weights_.end() ? nullptr : &*found;
}

const WeightSpec* WeightTable::find_gguf(std::string_view gguf_name) const {
  const auto found = std::find_if(weights_.begin(), weights_.end(), [&](const auto& w) { return w.gguf_name == gguf_name; });
  return found == weights_.end() ? nullptr : &*found;
}

const WeightSpec& WeightTable::head() const {
  const WeightSpec* own = find("lm_head.weight");
  return own != nullptr ? *own : *find("embed_tokens.weight");
}

int64_t WeightTable::elements() const {
  return std::accumulate(weights_.begin(), weights_.end(), int64_t{0},
                         [](int64_t sum, const WeightSpec& weight) { return sum + weight.elements(); });
}

bool WeightTable::is_redundant(std::string_view name) const {
  return std::find(redundant_.begin(), redundant_.end(), name) != redundant_.end();
}

}  // namespace qat
