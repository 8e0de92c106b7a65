#include "gemma4/config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"

namespace qat {

using nlohmann::json;

namespace {

// No published model exceeds these; they keep a hostile config from asking for absurd memory.
constexpr int64_t kLargestSize = int64_t{1} << 24;
constexpr int64_t kMostLayers = 512;

// Typed reading of one JSON object with errors that name file and field.
class Fields {
 public:
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object_.is_object()) fail(where_, ": must be an object");
  }

  const json* find(const char* name) const {
    const auto found = object_.find(name);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  int64_t size(const char* name) const {
    const json* value = find(name);
    if (value == nullptr) fail(where_, ": ", name, " is missing");
    return checked_size(*value, name, 1);
  }
  int64_t size_or(const char* name, int64_t otherwise) const {
    const json* value = find(name);
    return value == nullptr ? otherwise : checked_size(*value, name, 0);
  }
  double number_or(const char* name, double otherwise) const {
    const json* value = find(name);
    if (value == nullptr) return otherwise;
    if (!value->is_number() || !std::isfinite(value->get<double>())) fail(where_, ": ", name, " must be a number");
    return value->get<double>();
  }
  bool flag_or(const char* name, bool otherwise) const {
    const json* value = find(name);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) fail(where_, ": ", name, " must be true or false");
    return value->get<bool>();
  }
  std::string text_or(const char* name, const std::string& otherwise) const {
    const json* value = find(name);
    if (value == nullptr) return otherwise;
    if (!value->is_string()) fail(where_, ": ", name, " must be a string");
    return value->get<std::string>();
  }
  const std::string& where() const { return where_; }

 private:
  int64_t checked_size(const json& value, const char* name, int64_t least) const {
    if (!value.is_number_integer() || value.get<double>() < static_cast<double>(least) ||
        value.get<double>() > static_cast<double>(kLargestSize)) {
      fail(where_, ": ", name, " must be a whole number from ", least, " to ", kLargestSize, ", found ", value.dump());
    }
    return value.get<int64_t>();
  }
  const json& object_;
  std::string where_;
};

std::vector<LayerType> layer_types(const Fields& text, int64_t count) {
  std::vector<LayerType> types;
  if (const json* list = text.find("layer_types")) {
    if (!list->is_array() || static_cast<int64_t>(list->size()) != count) {
      fail(text.where(), ": layer_types must have an entry for each of the ", count, " layers");
    }
    for (const json& entry : *list) {
      if (entry == "sliding_attention") {
        types.push_back(LayerType::Sliding);
      } else if (entry == "full_attention") {
        types.push_back(LayerType::Full);
      } else {
        fail(text.where(), ": layer_types has ", entry.dump(), ", known are sliding_attention and full_attention");
      }
    }
  } else {
    const int64_t period = std::max<int64_t>(1, text.size_or("sliding_window_pattern", 6));
    for (int64_t i = 0; i < count; ++i) types.push_back((i + 1) % period == 0 ? LayerType::Full : LayerType::Sliding);
  }
  return types;
}

// rope_parameters is keyed by layer type; older files have rope_theta (full), rope_local_base_freq (sliding), rope_scaling.
RopeConfig read_rope(const Fields& text, LayerType type, Family family, int64_t head_dim) {
  const bool full = type == LayerType::Full;
  const char* type_name = full ? "full_attention" : "sliding_attention";
  RopeConfig rope;
  rope.head_dim = head_dim;
  rope.theta = full ? text.number_or("rope_theta", 1e6) : text.number_or("rope_local_base_freq", 1e4);
  std::string rope_type = full && family == Family::Gemma4 ? "proportional" : "default";
  double turning_share = full && family == Family::Gemma4 ? 0.25 : 1.0;

  const auto read_parameters = [&](const json& parameters, const std::string& where) {
    const Fields fields(parameters, where);
    rope_type = fields.text_or("rope_type", fields.text_or("type", rope_type));
    rope.theta = fields.number_or("rope_theta", rope.theta);
    turning_share = fields.number_or("partial_rotary_factor", rope_type == "proportional" ? turning_share : 1.0);
    rope.factor = fields.number_or("factor", 1.0);
  };
  if (const json* parameters = text.find("rope_parameters")) {
    const bool keyed = parameters->is_object() && parameters->contains(type_name);
    if (!keyed) fail(text.where(), ": rope_parameters has no entry for ", type_name);
    if (!(*parameters)[type_name].is_null()) {
      read_parameters((*parameters)[type_name], text.where() + ": rope_parameters." + type_name);
    }
  } else if (const json* scaling = text.find("rope_scaling"); scaling != nullptr && full) {
    read_parameters(*scaling, text.where() + ": rope_scaling");
  }
  if (rope_type != "default" && rope_type != "linear" && rope_type != "proportional") {
    fail(text.where(), ": rope_type \"", rope_type, "\" is not supported (known: default, linear, proportional)");
  }
  if (rope.theta <= 0 || rope.factor <= 0 || turning_share <= 0 || turning_share > 1) {
    fail(text.where(), ": rope of ", type_name, ": theta and factor must be positive, partial_rotary_factor in (0, 1]");
  }
  rope.rotated_pairs = static_cast<int64_t>(turning_share * static_cast<double>(head_dim)) / 2;
  return rope;
}

struct PerTypeFacts {
  int64_t head_dim;
  int64_t key_value_heads;
};

// Facts of one layer from per_layer_config: an object keyed by the layer index as text, possibly zero-padded.
PerTypeFacts override_by_layer(const Fields& text, int64_t layer, PerTypeFacts facts) {
  const json* by_layer = text.find("per_layer_config");
  if (by_layer == nullptr) return facts;
  if (!by_layer->is_object()) fail(text.where(), ": per_layer_config must be an object keyed by layer index");
  for (const auto& item : by_layer->items()) {
    const std::string& key = item.key();
    if (key.empty() || key.size() > 4 || !std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      fail(text.where(), ": per_layer_config has the key \"", key, "\", wanted a layer index");
    }
    if (std::stoll(key) != layer) continue;
    const Fields fields(item.value(), text.where() + ": per_layer_config." + key);
    for (const auto& entry : item.value().items()) {
      if (entry.key() != "head_dim" && entry.key() != "num_key_value_heads") {
        fail(fields.where(), ": ", entry.key(), " is not supported (known: head_dim, num_key_value_heads)");
      }
    }
    facts.head_dim = fields.size_or("head_dim", facts.head_dim);
    facts.key_value_heads = fields.size_or("num_key_value_heads", facts.key_value_heads);
  }
  return facts;
}

// The old spelling: facts of all full layers at once. Contradictions with per_layer_config are refused.
PerTypeFacts facts_of_layer(const Fields& text, int64_t layer, LayerType type, Family family, bool key_is_value) {
  PerTypeFacts facts{text.size("head_dim"), text.size("num_key_value_heads")};
  if (family == Family::Gemma3 || type == LayerType::Sliding) return override_by_layer(text, layer, facts);

  const bool has_new_form = text.find("per_layer_config") != nullptr;
  const bool has_old_form = text.find("global_head_dim") != nullptr;
  if (has_old_form || !has_new_form) facts.head_dim = text.size_or("global_head_dim", 512);
  // num_global_key_value_heads counts only together with attention_k_eq_v.
  if (key_is_value) facts.key_value_heads = text.size_or("num_global_key_value_heads", facts.key_value_heads);

  const PerTypeFacts by_layer = override_by_layer(text, layer, facts);
  const bool old_heads = key_is_value && text.find("num_global_key_value_heads") != nullptr;
  if (has_old_form && by_layer.head_dim != facts.head_dim) {
    fail(text.where(), ": layer ", layer, " has head_dim ", by_layer.head_dim, " in per_layer_config and ",
         facts.head_dim, " in global_head_dim");
  }
  if (old_heads && by_layer.key_value_heads != facts.key_value_heads) {
    fail(text.where(), ": layer ", layer, " has num_key_value_heads ", by_layer.key_value_heads,
         " in per_layer_config and ", facts.key_value_heads, " in num_global_key_value_heads");
  }
  return by_layer;
}

std::vector<int64_t> token_list(const json& value, const std::string& where) {
  std::vector<int64_t> ids;
  for (const json& id : value.is_array() ? value : json::array({value})) {
    if (!id.is_number_integer() || id.get<double>() < 0 || id.get<double>() > static_cast<double>(kLargestSize)) {
      fail(where, ": eos_token_id has ", id.dump(), ", wanted token ids");
    }
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

Family family_of(const std::string& model_type, const std::string& where) {
  if (model_type == "gemma4" || model_type == "gemma4_text" || model_type == "gemma4_unified" ||
      model_type == "gemma4_unified_text") {
    return Family::Gemma4;
  }
  if (model_type == "gemma3" || model_type == "gemma3_text") return Family::Gemma3;
  fail(where, ": model_type \"", model_type, "\" is not supported (known: gemma4, gemma4_text, gemma4_unified, gemma4_unified_text, gemma3, gemma3_text)");
}

void refuse_unsupported(const Fields& text) {
  if (text.flag_or("attention_bias", false)) fail(text.where(), ": attention_bias true is not supported");
  if (const json* bidirectional = text.find("use_bidirectional_attention")) {
    // Image tokens of "vision" attend both ways; text is unaffected.
    if (*bidirectional != "vision" && *bidirectional != false) {
      fail(text.where(), ": use_bidirectional_attention ", bidirectional->dump(), " is not supported");
    }
  }
  if (text.find("attn_logit_softcapping") != nullptr) fail(text.where(), ": attn_logit_softcapping is not supported");
  const std::string activation = text.text_or("hidden_activation", "gelu_pytorch_tanh");
  if (activation != "gelu_pytorch_tanh") fail(text.where(), ": hidden_activation \"", activation, "\" is not supported");
}

// Layers without own keys and values read the last own layer of their type.
void assign_donors(Gemma4Config& config, int64_t shared, const std::string& where) {
  const int64_t own = config.layer_count() - shared;
  if (shared == 0) return;
  if (own < 1) fail(where, ": num_kv_shared_layers ", shared, " leaves no layer of ", config.layer_count(), " with own keys");
  for (LayerConfig& layer : config.layers) {
    if (layer.index < own) continue;
    for (int64_t donor = own - 1; donor >= 0 && !layer.key_value_donor; --donor) {
      if (config.layers[static_cast<size_t>(donor)].type == layer.type) layer.key_value_donor = donor;
    }
    if (!layer.key_value_donor) {
      fail(where, ": layer ", layer.index, " shares keys and values, but no earlier layer with own ones has its type");
    }
  }
}

}  // namespace

std::vector<float> RopeConfig::frequencies() const {
  std::vector<float> result(static_cast<size_t>(head_dim / 2), 0.0f);
  for (int64_t m = 0; m < rotated_pairs; ++m) {
    const float exponent = static_cast<float>(2 * m) / static_cast<float>(head_dim);
    result[static_cast<size_t>(m)] =
        1.0f / std::pow(static_cast<float>(theta), exponent) / static_cast<float>(factor);
  }
  return result;
}

Gemma4Config Gemma4Config::load(const std::filesystem::path& path) {
  const auto file = std::filesystem::is_directory(path) ? path / "config.json" : path;
  return parse(load_json(file), file.string());
}

Gemma4Config Gemma4Config::parse(const json& document, const std::string& where) {
  const Fields top(document, where);
  const json* nested = top.find("text_config");
  const Fields text(nested == nullptr ? document : *nested, nested == nullptr ? where : where + ": text_config");
  refuse_unsupported(text);

  Gemma4Config config;
  config.family = family_of(text.text_or("model_type", top.text_or("model_type", "")), where);
  const bool gemma4 = config.family == Family::Gemma4;
  config.hidden_size = text.size("hidden_size");
  config.vocabulary_size = text.size("vocab_size");
  config.max_positions = text.size_or("max_position_embeddings", 131072);
  config.sliding_window = text.size("sliding_window");
  config.norm_epsilon = text.number_or("rms_norm_eps", 1e-6);
  config.tied_head = text.flag_or("tie_word_embeddings", top.flag_or("tie_word_embeddings", true));
  config.final_logit_softcap = text.number_or("final_logit_softcapping", 0);
  config.norm_offset = gemma4 ? 0 : 1;
  config.value_norm = gemma4;
  config.has_layer_scalar = gemma4;
  config.bos_token = text.size_or("bos_token_id", top.size_or("bos_token_id", 2));
  config.pad_token = text.size_or("pad_token_id", top.size_or("pad_token_id", 0));
  const json* eos = top.find("eos_token_id") != nullptr ? top.find("eos_token_id") : text.find("eos_token_id");
  if (eos != nullptr) config.eos_tokens = token_list(*eos, where);

  const int64_t count = text.size("num_hidden_layers");
  if (count > kMostLayers) fail(text.where(), ": num_hidden_layers ", count, " exceeds ", kMostLayers);
  const int64_t heads = text.size("num_attention_heads");
  const int64_t intermediate = text.size("intermediate_size");
  const auto types = layer_types(text, count);

  int64_t shared = 0;
  bool key_is_value = false;
  bool double_wide = false;
  bool has_experts = false;
  if (gemma4) {
    config.per_layer_input_size = text.size_or("hidden_size_per_layer_input", 0);
    shared = text.size_or("num_kv_shared_layers", 0);
    key_is_value = text.flag_or("attention_k_eq_v", false);
    double_wide = text.flag_or("use_double_wide_mlp", false);
    has_experts = text.flag_or("enable_moe_block", false);
  } else {
    const int64_t head_dim = text.size("head_dim");
    config.attention_scale = 1.0 / std::sqrt(text.number_or("query_pre_attn_scalar", static_cast<double>(head_dim)));
  }
  if (has_experts) {
    config.experts = text.size("num_experts");
    config.experts_per_token = text.size("top_k_experts");
    config.expert_intermediate_size = text.size("moe_intermediate_size");
    if (config.experts_per_token > config.experts) fail(text.where(), ": top_k_experts exceeds num_experts");
  }

  for (int64_t i = 0; i < count; ++i) {
    LayerConfig layer;
    layer.index = i;
    layer.type = types[static_cast<size_t>(i)];
    const bool full = layer.type == LayerType::Full;
    layer.window = full ? 0 : config.sliding_window;
    layer.heads = heads;
    layer.value_is_key = key_is_value && full;
    const PerTypeFacts facts = facts_of_layer(text, i, layer.type, config.family, key_is_value);
    layer.head_dim = facts.head_dim;
    layer.key_value_heads = facts.key_value_heads;
    layer.double_wide_mlp = double_wide && shared > 0 && i >= count - shared;
    layer.intermediate_size = intermediate * (layer.double_wide_mlp ? 2 : 1);
    layer.rope = read_rope(text, layer.type, config.family, layer.head_dim);
    layer.has_experts = has_experts;
    if (layer.head_dim % 2 != 0) fail(text.where(), ": layer ", i, ": head_dim ", layer.head_dim, " is odd");
    if (heads % layer.key_value_heads != 0) {
      fail(text.where(), ": layer ", i, ": ", heads, " heads do not divide into ", layer.key_value_heads, " key-value heads");
    }
    config.layers.push_back(layer);
  }
  assign_donors(config, shared, text.where());
  for (const LayerConfig& layer : config.layers) {
    if (!layer.key_value_donor) continue;
    const LayerConfig& donor = config.layers[static_cast<size_t>(*layer.key_value_donor)];
    if (donor.head_dim != layer.head_dim || donor.key_value_heads != layer.key_value_heads) {
      fail(text.where(), ": layer ", layer.index, " has another head shape than layer ", donor.index, ", whose keys it reads");
    }
  }
  return config;
}

}  // namespace qat
