// Gemma 4 as TFLite graphs that compute what reference/forward.cpp computes, with static int8 edges around the linears
// and an int8 key-value cache that each call updates in place. Signatures and tensor names:
// mobile_format.md 2.3, 2.4, 9.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "exporters/litertlm_constants.h"
#include "exporters/litertlm_graph.h"
#include "exporters/litertlm_weights.h"

namespace qat {

// Token ids [1, 1] -> scaled embeddings [1, 1, hidden]; a model of its own.
void add_embedder(const LitertlmWeights& weights, LitertlmConstants& constants);
// Token ids [1, 1] -> scaled rows of all per-layer tables [1, 1, layers, width]; a model of its own.
void add_per_layer_embedder(const LitertlmWeights& weights, LitertlmConstants& constants);

// Name of a layer's cache in the signatures.
std::string key_cache_name(int64_t layer);
std::string value_cache_name(int64_t layer);

struct DecoderShape {
  int64_t context = 0;         // positions of the caches
  bool takes_tokens = false;   // looks embeddings up itself
  bool head_is_table = false;  // the head is the token table; one constant if the graph looks up too
};

// One signature: `tokens` positions from input_pos on. A prefill stops after the last layer that has a cache of its
// own; decoding (one token) gives logits.
class DecoderGraph {
 public:
  DecoderGraph(const LitertlmWeights& weights, LitertlmConstants& constants, const DecoderShape& shape, std::string key,
               int64_t tokens, bool with_logits);

  TfliteGraph build();

 private:
  struct Rotation {
    GraphValue cosine, sine;  // [tokens, 1, head_dim / 2]
  };
  struct Caches {
    GraphValue keys, values;  // int8 or fp32 [1, key_value_heads, context, head_dim]
  };

  const WeightSpec& weight(const std::string& name) const;
  const WeightSpec& weight(const LayerConfig& layer, const std::string& name) const;
  GraphValue norm(GraphValue x, const WeightSpec& weight);
  GraphValue linear(GraphValue x, const WeightSpec& weight, float factor = 1);
  GraphValue float_linear(GraphValue x, const WeightSpec& weight, float factor);

  void add_inputs();
  GraphValue embed();
  void add_per_layer_inputs(GraphValue embedded);
  Rotation rotation(const RopeConfig& rope);
  GraphValue rotate(GraphValue x, const RopeConfig& rope);
  GraphValue mask(const LayerConfig& layer);
  GraphValue heads(GraphValue x, int64_t heads, int64_t head_dim);
  GraphValue update_cache(const std::string& name, GraphValue x, const LayerConfig& layer, float scale);
  void update_caches(const LayerConfig& layer, GraphValue x);
  GraphValue cached(GraphValue cache);
  GraphValue attention(const LayerConfig& layer, GraphValue x);
  GraphValue mlp(const LayerConfig& layer, GraphValue x);
  GraphValue run_layer(const LayerConfig& layer, GraphValue x);
  void add_logits(GraphValue x);

  const LitertlmWeights& weights_;
  LitertlmConstants& constants_;
  const Gemma4Config& config_;
  DecoderShape shape_;
  int32_t tokens_;
  bool with_logits_;
  float epsilon_;
  LitertlmGraph graph_;

  GraphValue embedded_ = 0, looked_up_per_layer_ = 0, positions_ = 0, cache_begin_ = 0;
  GraphValue visible_ = 0;
  std::map<int64_t, GraphValue> masks_;  // by window
  GraphValue per_layer_inputs_ = 0;      // [tokens, layers, width]
  std::map<std::tuple<double, int64_t, int64_t, double>, Rotation> rotations_;
  std::map<int64_t, std::pair<GraphValue, GraphValue>> cache_inputs_;
  std::map<int64_t, Caches> caches_;
};

}  // namespace qat
