// Random Gemma models written as GGUF files, with parts left out or bent on request.
#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/random.h"
#include "gemma4/weight_table.h"
#include "io/gguf.h"
#include "quant/block_codec.h"

namespace qat::testing {

struct RandomGguf {
  bool gemma3 = false;
  bool experts = false;  // without: per-layer inputs and shared keys
  Scheme matrices = Scheme::Q4_0;
  int64_t head_dim = 32;            // of sliding layers; full ones have twice as much (Gemma 3: the same)
  std::set<std::string> left_out = {};   // keys and tensors
  std::optional<std::string> bent = std::nullopt;  // tensor written with one row more
  uint64_t seed = 1;
};

inline constexpr int64_t kVocabulary = 96;

// What the file's metadata says, as config_from_gguf() should find it.
inline Gemma4Config config_of(const RandomGguf& wanted) {
  Gemma4Config config;
  config.family = wanted.gemma3 ? Family::Gemma3 : Family::Gemma4;
  config.hidden_size = 64;
  config.vocabulary_size = kVocabulary;
  config.max_positions = 512;
  config.sliding_window = 16;
  config.final_logit_softcap = wanted.gemma3 ? 0 : 30;
  config.value_norm = !wanted.gemma3;
  config.has_layer_scalar = !wanted.gemma3;
  if (wanted.gemma3) config.attention_scale = 1 / std::sqrt(static_cast<double>(wanted.head_dim));
  const bool per_layer = !wanted.gemma3 && !wanted.experts;
  if (per_layer) config.per_layer_input_size = 32;
  if (wanted.experts) {
    config.experts = 4;
    config.experts_per_token = 2;
    config.expert_intermediate_size = 32;
  }
  const int64_t layers = wanted.gemma3 ? 7 : 4;
  for (int64_t i = 0; i < layers; ++i) {
    LayerConfig layer;
    layer.index = i;
    const bool sliding = wanted.gemma3 ? i != 5 : i % 2 == 0;
    layer.type = sliding ? LayerType::Sliding : LayerType::Full;
    layer.window = sliding ? 16 : 0;
    layer.heads = 4;
    layer.key_value_heads = wanted.experts && !sliding ? 1 : 2;
    layer.head_dim = sliding || wanted.gemma3 ? wanted.head_dim : 2 * wanted.head_dim;
    layer.intermediate_size = per_layer && i >= 2 ? 192 : 96;
    layer.rope = {sliding ? 1e4 : 1e6, layer.head_dim, layer.head_dim / (sliding || wanted.gemma3 ? 2 : 8),
                  wanted.gemma3 && !sliding ? 8.0 : 1.0};
    if (per_layer && i >= 2) layer.key_value_donor = i - 2;
    layer.value_is_key = wanted.experts && !sliding;
    layer.has_experts = wanted.experts;
    config.layers.push_back(layer);
  }
  return config;
}

inline void add_metadata(GgufWriter& writer, const RandomGguf& wanted, const Gemma4Config& config) {
  const auto put = [&](const std::string& key, GgufValue value) {
    if (!wanted.left_out.contains(key)) writer.add(key, std::move(value));
  };
  const auto size = [](int64_t value) { return static_cast<uint32_t>(value); };
  put("general.architecture", config.architecture());
  const std::string prefix = config.architecture() + ".";
  std::vector<int32_t> widths, key_value_heads;
  std::vector<bool> sliding;
  for (const LayerConfig& layer : config.layers) {
    widths.push_back(static_cast<int32_t>(layer.intermediate_size));
    key_value_heads.push_back(static_cast<int32_t>(layer.key_value_heads));
    sliding.push_back(layer.type == LayerType::Sliding);
  }
  put(prefix + "block_count", size(config.layer_count()));
  put(prefix + "context_length", size(config.max_positions));
  put(prefix + "embedding_length", size(config.hidden_size));
  put(prefix + "feed_forward_length", GgufArray(widths));
  put(prefix + "attention.head_count", uint32_t{4});
  put(prefix + "attention.head_count_kv", GgufArray(key_value_heads));
  put(prefix + "attention.layer_norm_rms_epsilon", 1e-6f);
  put(prefix + "attention.sliding_window", size(config.sliding_window));
  put(prefix + "attention.key_length", size(config.layers[wanted.gemma3 ? 5 : 1].head_dim));
  put(prefix + "rope.freq_base", 1e6f);
  if (wanted.gemma3) {
    put(prefix + "rope.scaling.type", std::string("linear"));
    put(prefix + "rope.scaling.factor", 8.0f);
  } else {
    put(prefix + "attention.key_length_swa", size(wanted.head_dim));
    put(prefix + "attention.sliding_window_pattern", GgufArray(sliding));
    put(prefix + "attention.shared_kv_layers", uint32_t{config.has_per_layer_inputs() ? 2u : 0u});
    put(prefix + "rope.freq_base_swa", 1e4f);
    put(prefix + "final_logit_softcapping", 30.0f);
    put(prefix + "embedding_length_per_layer_input", size(config.per_layer_input_size));
    put(prefix + "expert_count", size(config.experts));
    put(prefix + "expert_used_count", size(config.experts_per_token));
    put(prefix + "expert_feed_forward_length", size(config.expert_intermediate_size));
  }
  std::vector<std::string> tokens;
  for (int64_t i = 0; i < kVocabulary; ++i) tokens.push_back("t" + std::to_string(i));
  put("tokenizer.ggml.tokens", GgufArray(tokens));
  put("tokenizer.ggml.bos_token_id", uint32_t{2});
  put("tokenizer.ggml.eos_token_id", uint32_t{1});
}

struct RandomTensor {
  std::string name;
  std::vector<int64_t> shape;
  Scheme scheme;
  std::vector<float> values;
};

// Uniform values: matrices with a standard deviation of one over the root of their width, everything else in 0.7
// .. 1.3.
inline std::vector<RandomTensor> random_tensors(const RandomGguf& wanted, const Gemma4Config& config) {
  SplitMix64 random(wanted.seed);
  std::vector<RandomTensor> tensors;
  const WeightTable table(config);
  for (const WeightSpec& weight : table.weights()) {
    const bool matrix = is_matrix(weight.role) && weight.role != WeightRole::Router;
    RandomTensor tensor{weight.gguf_name, weight.shape, matrix ? wanted.matrices : Scheme::F32, {}};
    if (weight.role == WeightRole::PerLayerModelProjection) tensor.scheme = Scheme::BF16;
    if (wanted.bent == tensor.name) ++tensor.shape[0];
    int64_t count = 1;
    for (const int64_t length : tensor.shape) count *= length;
    const double half_range = is_matrix(weight.role) ? std::sqrt(3.0 / static_cast<double>(weight.columns())) : 0.3;
    const double middle = is_matrix(weight.role) ? 0.0 : 1.0;
    for (int64_t i = 0; i < count; ++i) {
      tensor.values.push_back(static_cast<float>(middle + half_range * (2 * random.uniform() - 1)));
    }
    tensors.push_back(std::move(tensor));
  }
  if (!wanted.gemma3) {
    const auto pairs = static_cast<size_t>(wanted.head_dim);
    RandomTensor divisors{"rope_freqs.weight", {wanted.head_dim}, Scheme::F32, std::vector<float>(pairs, 1e30f)};
    std::fill_n(divisors.values.begin(), pairs / 4, 1.0f);
    tensors.push_back(std::move(divisors));
  }
  std::erase_if(tensors, [&](const RandomTensor& tensor) { return wanted.left_out.contains(tensor.name); });
  return tensors;
}

inline void write_random_gguf(const std::filesystem::path& path, const RandomGguf& wanted) {
  const Gemma4Config config = config_of(wanted);
  const std::vector<RandomTensor> tensors = random_tensors(wanted, config);
  GgufWriter writer(path);
  add_metadata(writer, wanted, config);
  for (const RandomTensor& tensor : tensors) writer.declare(tensor.name, tensor.shape, tensor.scheme);
  writer.begin_data();
  for (size_t i = 0; i < tensors.size(); ++i) {
    std::vector<std::byte> blocks(writer.tensor_bytes(i));
    encode_blocks(tensors[i].scheme, std::span<const float>(tensors[i].values), {}, blocks);
    writer.write(i, 0, blocks);
  }
  writer.commit();
}

}  // namespace qat::testing
