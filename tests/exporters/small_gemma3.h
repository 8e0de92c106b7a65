// A Gemma 3 of seven layers, as the config.json of a text model: what two fixtures of exporters begin with.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

namespace qat::test {

inline nlohmann::json small_gemma3_json(int64_t vocabulary, bool tied) {
  nlohmann::json types = nlohmann::json::array();
  for (int layer = 0; layer < 7; ++layer) types.push_back(layer == 5 ? "full_attention" : "sliding_attention");
  return {{"model_type", "gemma3_text"},
          {"vocab_size", vocabulary},
          {"hidden_size", 64},
          {"num_hidden_layers", 7},
          {"num_attention_heads", 2},
          {"num_key_value_heads", 1},
          {"head_dim", 32},
          {"query_pre_attn_scalar", 32},
          {"intermediate_size", 96},
          {"sliding_window", 16},
          {"layer_types", types},
          {"tie_word_embeddings", tied}};
}

}  // namespace qat::test
