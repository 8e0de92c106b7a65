// A Gemma text model described: config.json resolved into facts of the model and of every layer, so that no other file
// asks for a layer's number, a model's size or a family's habits. Gemma 4 (E2B, E4B, 12B, 31B, 26B-A4B) and Gemma 3 text
// models are the same description with other facts. Source: gemma4_architecture.md 1, 2; toolchain.md "A real network".
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace qat {

enum class Family { Gemma3, Gemma4 };
enum class LayerType { Sliding, Full };

// Rotary embedding of a layer. Element m pairs with m + head_dim / 2; pair m turns by position * frequency(m).
struct RopeConfig {
  double theta = 0;
  int64_t head_dim = 0;
  int64_t rotated_pairs = 0;  // pairs from here on do not turn ("proportional" RoPE turns the first quarter)
  double factor = 1;          // positions are divided by this (linear scaling)

  // fp32 frequencies of all head_dim / 2 pairs: 1 / theta^(2m / head_dim) / factor, or 0.
  std::vector<float> frequencies() const;
};

struct LayerConfig {
  int64_t index = 0;
  LayerType type = LayerType::Full;
  int64_t window = 0;  // keys a query sees, itself included; 0 = all before it
  int64_t heads = 0;
  int64_t key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t intermediate_size = 0;
  bool double_wide_mlp = false;  // intermediate_size is twice that of the model's other layers
  RopeConfig rope;
  bool value_is_key = false;                    // V is the raw K projection; there is no v_proj
  std::optional<int64_t> key_value_donor;       // layer whose keys and values this one reads; it has no own
  bool has_experts = false;

  int64_t query_width() const { return heads * head_dim; }
  int64_t key_value_width() const { return key_value_heads * head_dim; }
};

struct Gemma4Config {
  Family family = Family::Gemma4;
  int64_t hidden_size = 0;
  int64_t vocabulary_size = 0;
  int64_t max_positions = 0;
  int64_t sliding_window = 0;
  int64_t per_layer_input_size = 0;  // P; 0 = the model has no per-layer embeddings
  double norm_epsilon = 1e-6;
  double norm_offset = 0;            // norms multiply by norm_offset + weight (Gemma 3: 1)
  double attention_scale = 1;
  double final_logit_softcap = 0;    // 0 = none
  bool value_norm = true;            // V passes an RMSNorm without weight
  bool has_layer_scalar = true;
  bool tied_head = true;
  int64_t experts = 0;               // 0 = no layer has experts
  int64_t experts_per_token = 0;
  int64_t expert_intermediate_size = 0;
  int64_t bos_token = 2;
  int64_t pad_token = 0;
  std::vector<int64_t> eos_tokens{1};
  std::vector<LayerConfig> layers;

  bool has_per_layer_inputs() const { return per_layer_input_size > 0; }
  int64_t layer_count() const { return static_cast<int64_t>(layers.size()); }
  // "gemma4" or "gemma3": the GGUF architecture name.
  std::string architecture() const { return family == Family::Gemma4 ? "gemma4" : "gemma3"; }

  // Reads config.json of a model folder (or the file itself). Text settings at the top level or under text_config; both
  // spellings of per-layer facts (global_head_dim, num_global_key_value_heads / per_layer_config). Throws Error for a
  // model that is no Gemma 3 or 4, a missing field, or facts that contradict each other.
  static Gemma4Config load(const std::filesystem::path& path);
  static Gemma4Config parse(const nlohmann::json& config, const std::string& where);
};

}  // namespace qat
