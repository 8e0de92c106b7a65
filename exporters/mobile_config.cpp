#include "exporters/mobile_config.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "gemma4/mobile_import.h"

namespace qat {

namespace {

constexpr const char* kTextPrefix = "^model\\.(language_model\\.)?";

int bits_of(const QuantScheme& row) { return static_cast<int>(8 / row.block_size); }

std::string escaped(const std::string& module) {
  std::string result;
  for (const char c : module) result += c == '.' ? std::string("\\.") : std::string(1, c);
  return result;
}

// The layers in which one part of a layer ("mlp.up_proj") has one bit width.
using LayersByWidth = std::map<std::pair<std::string, int>, std::vector<int64_t>>;

std::string layer_pattern(const std::string& part, const std::vector<int64_t>& layers, int64_t all_layers) {
  std::string numbers;
  for (const int64_t layer : layers) numbers += (numbers.empty() ? "" : "|") + std::to_string(layer);
  const bool every = static_cast<int64_t>(layers.size()) == all_layers;
  return std::string(kTextPrefix) + "layers\\." + (every ? "\\d+" : "(" + numbers + ")") + "\\." + escaped(part) + "$";
}

// Towers are written as they came: whole, or quantized as the folder said that the checkpoint was imported from.
void add_other_modalities(const nlohmann::ordered_json& config, nlohmann::ordered_json& widths,
                          std::vector<std::string>& whole) {
  const auto towers = config.find(kTowerQuantization);
  if (towers == config.end()) {
    for (const char* module : {"model.vision_tower", "model.audio_tower", "model.embed_vision", "model.embed_audio"}) {
      whole.emplace_back(module);
    }
    return;
  }
  widths.update((*towers)["module_quant_configs"]);
  for (const auto& module : (*towers)["modules_to_not_convert"]) {
    const auto name = module.get<std::string>();
    if (std::find(whole.begin(), whole.end(), name) == whole.end()) whole.push_back(name);
  }
}

}  // namespace

bool mobile_folder_has_codes(const MobileCheckpoint& checkpoint, const WeightSpec& weight) {
  return checkpoint.scheme_of(weight).has_row_scales() && weight.role != WeightRole::PerLayerModelProjection;
}

nlohmann::ordered_json mobile_config(const nlohmann::ordered_json& config, const MobileCheckpoint& checkpoint) {
  nlohmann::ordered_json widths = nlohmann::ordered_json::object();
  std::vector<std::string> whole{"per_layer_model_projection"};
  add_other_modalities(config, widths, whole);
  LayersByWidth layers;
  for (const WeightSpec& weight : checkpoint.table().weights()) {
    if (!is_matrix(weight.role)) continue;
    const bool has_codes = mobile_folder_has_codes(checkpoint, weight);
    const int bits = has_codes ? bits_of(checkpoint.scheme_of(weight)) : 0;
    const std::string module = weight.module_name();
    if (weight.layer) {
      const std::string part = module.substr(module.find('.', std::string("layers.").size()) + 1);
      layers[{part, bits}].push_back(*weight.layer);
    } else if (!has_codes) {
      if (weight.role != WeightRole::PerLayerModelProjection) whole.push_back(module);
    } else if (weight.role == WeightRole::OutputHead) {
      widths["^lm_head$"] = {{"num_bits", bits}};
    } else {
      widths[kTextPrefix + escaped(module) + "$"] = {{"num_bits", bits}};
      // The folder's head is an untied copy of the table.
      if (weight.role == WeightRole::TokenEmbedding && checkpoint.config().tied_head) {
        widths["^lm_head$"] = {{"num_bits", bits}};
      }
    }
  }
  if (checkpoint.config().tied_head && !widths.contains("^lm_head$")) whole.emplace_back("lm_head");
  for (const auto& [part, numbers] : layers) {
    if (part.second > 0) {
      widths[layer_pattern(part.first, numbers, checkpoint.config().layer_count())] = {{"num_bits", part.second}};
    } else {
      // What stays whole is named in full: exclusions match suffixes, and one of a part would exclude every layer's.
      for (const int64_t layer : numbers) whole.push_back("layers." + std::to_string(layer) + "." + part.first);
    }
  }
  nlohmann::ordered_json result = config;
  result.erase(kTowerQuantization);
  result["tie_word_embeddings"] = false;
  if (result.contains("text_config")) result["text_config"]["tie_word_embeddings"] = false;
  result["quantization_config"] = {{"quant_method", "gemma"},
                                   {"num_bits", 4},
                                   {"quantize_embeddings", true},
                                   {"module_quant_configs", widths},
                                   {"modules_to_not_convert", whole}};
  return result;
}

}  // namespace qat
