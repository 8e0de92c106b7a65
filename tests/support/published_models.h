// config.json of the published models, as far as a text model's shapes need it. Source: gemma4_architecture.md 1.1;
// Gemma 3 270M: its published config.json.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace qat::testing {

inline nlohmann::json layer_types(int64_t count, int64_t period) {
  nlohmann::json types = nlohmann::json::array();
  for (int64_t i = 0; i < count; ++i) types.push_back((i + 1) % period == 0 ? "full_attention" : "sliding_attention");
  return types;
}

inline nlohmann::json gemma4_text(int64_t layers, int64_t hidden, int64_t heads, int64_t kv, int64_t intermediate,
                                  int64_t window, int64_t period) {
  return {{"model_type", "gemma4_text"},      {"num_hidden_layers", layers},     {"hidden_size", hidden},
          {"num_attention_heads", heads},     {"num_key_value_heads", kv},       {"head_dim", 256},
          {"global_head_dim", 512},           {"intermediate_size", intermediate}, {"sliding_window", window},
          {"vocab_size", 262144},             {"final_logit_softcapping", 30.0}, {"layer_types", layer_types(layers, period)}};
}

inline nlohmann::json published_e2b() {
  nlohmann::json text = gemma4_text(35, 1536, 8, 1, 6144, 512, 5);
  text.update({{"hidden_size_per_layer_input", 256}, {"num_kv_shared_layers", 20}, {"use_double_wide_mlp", true}});
  return text;
}

inline nlohmann::json published_e4b() {
  nlohmann::json text = gemma4_text(42, 2560, 8, 2, 10240, 512, 6);
  text.update({{"hidden_size_per_layer_input", 256}, {"num_kv_shared_layers", 18}});
  return text;
}

inline nlohmann::json published_12b() {
  nlohmann::json text = gemma4_text(48, 3840, 16, 8, 15360, 1024, 6);
  text.update({{"attention_k_eq_v", true}, {"num_global_key_value_heads", 1}});
  return text;
}

inline nlohmann::json published_26b_a4b() {
  nlohmann::json text = gemma4_text(30, 2816, 16, 8, 2112, 1024, 6);
  text.update({{"attention_k_eq_v", true}, {"num_global_key_value_heads", 2}, {"enable_moe_block", true},
               {"num_experts", 128}, {"top_k_experts", 8}, {"moe_intermediate_size", 704}});
  return text;
}

inline nlohmann::json published_31b() {
  nlohmann::json text = gemma4_text(60, 5376, 32, 16, 21504, 1024, 6);
  text.update({{"attention_k_eq_v", true}, {"num_global_key_value_heads", 4}});
  return text;
}

inline nlohmann::json published_gemma3_270m() {
  return {{"model_type", "gemma3_text"},  {"num_hidden_layers", 18},   {"hidden_size", 640},
          {"num_attention_heads", 4},     {"num_key_value_heads", 1},  {"head_dim", 256},
          {"intermediate_size", 2048},    {"sliding_window", 512},     {"vocab_size", 262144},
          {"query_pre_attn_scalar", 256}, {"rms_norm_eps", 1e-6},      {"max_position_embeddings", 32768},
          {"tie_word_embeddings", true},  {"layer_types", layer_types(18, 6)}};
}

}  // namespace qat::testing
