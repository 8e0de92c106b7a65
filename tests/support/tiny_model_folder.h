// A model folder with random BF16 weights, written from a config: for tests that need a whole model and no training.
#pragma once

#include <cmath>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "core/float_types.h"
#include "core/output_file.h"
#include "core/random.h"
#include "gemma4/config.h"
#include "gemma4/weight_table.h"
#include "io/safetensors.h"

namespace qat::testing {

// Per-layer embeddings, shared keys, a double-wide MLP, sliding and full layers; every row a multiple of 256 or of 32.
inline const char* const kTinyConfig = R"({"model_type": "gemma4_text", "num_hidden_layers": 4, "hidden_size": 64,
  "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "global_head_dim": 64, "intermediate_size": 96,
  "sliding_window": 16, "vocab_size": 576, "hidden_size_per_layer_input": 64, "num_kv_shared_layers": 2,
  "use_double_wide_mlp": true, "final_logit_softcapping": 30.0,
  "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]})";

// The same as "shared", and without what is shared: "dense", "value_is_key" (K = V), "experts" (K = V, too).
inline nlohmann::json tiny_config_json(const std::string& kind) {
  nlohmann::json config = nlohmann::json::parse(kTinyConfig);
  if (kind != "shared") {
    config["hidden_size_per_layer_input"] = 0;
    config["num_kv_shared_layers"] = 0;
    config["use_double_wide_mlp"] = false;
  }
  if (kind == "value_is_key" || kind == "experts") config["attention_k_eq_v"] = true;
  if (kind == "experts") {
    config["enable_moe_block"] = true;
    config["num_experts"] = 4;
    config["top_k_experts"] = 2;
    config["moe_intermediate_size"] = 32;
  }
  return config;
}

inline Gemma4Config tiny_config_of_kind(const std::string& kind) {
  return Gemma4Config::parse(tiny_config_json(kind), kind);
}

// Weights for a folder that has a config.json.
inline void write_random_weights(const std::filesystem::path& folder, uint64_t seed = 1) {
  const WeightTable table(Gemma4Config::load(folder));
  SafetensorsWriter writer(folder / "model.safetensors");
  for (const WeightSpec& weight : table.weights()) writer.declare("model." + weight.name, ElementType::BF16, weight.shape);
  SplitMix64 random(seed);
  for (const WeightSpec& weight : table.weights()) {
    const bool matrix = is_matrix(weight.role);
    const double size = 1.5 / std::sqrt(static_cast<double>(weight.columns()));
    std::vector<BFloat16> values(static_cast<size_t>(weight.elements()));
    for (BFloat16& value : values) {
      const double uniform = random.uniform();
      value = to_bfloat16(static_cast<float>(matrix ? size * (2 * uniform - 1) : 0.7 + 0.6 * uniform));
    }
    writer.write(std::as_bytes(std::span(values)));
  }
  writer.commit();
}

// `tokenizer` is copied to the folder's tokenizer.json unless empty.
inline void write_tiny_model(const std::filesystem::path& folder, const std::filesystem::path& tokenizer = {},
                             uint64_t seed = 1) {
  std::filesystem::create_directories(folder);
  write_file(folder / "config.json", kTinyConfig);
  if (!tokenizer.empty()) std::filesystem::copy_file(tokenizer, folder / "tokenizer.json");
  write_random_weights(folder, seed);
}

}  // namespace qat::testing
