// Every weight of a model: names in both worlds, shape, role. The one place that knows how Hugging Face and GGUF call things.
// Source: gemma4_architecture.md 3, 4.2.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gemma4/config.h"

namespace qat {

enum class WeightRole {
  TokenEmbedding,          // also the head where it is tied
  OutputHead,              // only where it is not tied
  PerLayerEmbedding,
  PerLayerModelProjection,
  AttentionQuery,
  AttentionKey,
  AttentionValue,
  AttentionOutput,
  MlpGate,
  MlpUp,
  MlpDown,
  PerLayerInputGate,
  PerLayerProjection,
  Router,
  ExpertGateUp,
  ExpertDown,
  Norm,         // RMSNorm weights
  LayerScalar,
  RouterScale,  // vector on the router's input
  ExpertScale   // scalar per expert
};

// "attention_query": the name of a role in plans.
std::string_view role_name(WeightRole role);
std::optional<WeightRole> role_by_name(std::string_view name);
std::vector<std::string> role_names();

// True for roles that are matrices, tables or stacks of matrices: those that a plan must give a scheme.
bool is_matrix(WeightRole role);

// True for the token and the per-layer embedding, whose rows are looked up.
bool is_table(WeightRole role);

// True for matrices of decoder layers, and the per-layer model projection, that are plain linear maps of activations: those
// whose inputs and outputs a plan may quantize. Not the head, tables, routers and experts.
bool is_linear(WeightRole role);

struct WeightSpec {
  std::string name;       // Hugging Face name without the model's prefix: "layers.3.self_attn.q_proj.weight"
  std::string gguf_name;  // "blk.3.attn_q.weight"
  std::vector<int64_t> shape;  // row-major, slowest first: [out, in], [vocabulary, width], [experts, out, in], [width]
  WeightRole role;
  std::optional<int64_t> layer;
  bool double_wide = false;  // of an MLP twice as wide as the model's other ones
  int64_t scale_width = 0;   // consecutive values that share a scale under schemes with row scales: a row, or a layer's slice

  int64_t elements() const;
  int64_t row_scales() const { return elements() / scale_width; }
  // Linears that read one and the same activation have the same input: "layers.3.self_attn" for q, k and v, "layers.3.mlp" for
  // gate and up, else the module itself ("layers.3.mlp.down_proj").
  std::string input_name() const;
  // "layers.3.mlp.down_proj": the name without ".weight".
  std::string module_name() const;
  int64_t columns() const { return shape.back(); }
  int64_t rows() const { return elements() / columns(); }
};

class WeightTable {
 public:
  explicit WeightTable(const Gemma4Config& config);

  // In the order of the forward pass.
  const std::vector<WeightSpec>& weights() const { return weights_; }
  // By HF name without prefix, or by GGUF name; null if there is none.
  const WeightSpec* find(std::string_view name) const;
  const WeightSpec* find_gguf(std::string_view gguf_name) const;
  // What makes logits of hidden states: lm_head.weight, or the token embedding where it is tied.
  const WeightSpec& head() const;
  // Values of all weights together.
  int64_t elements() const;

  // K and V tensors (in either naming) of layers that share another layer's, which some files carry and no model reads.
  bool is_redundant(std::string_view name) const;

 private:
  void add(std::string name, std::string gguf_name, std::vector<int64_t> shape, WeightRole role,
           std::optional<int64_t> layer = std::nullopt);
  void add_layer(const Gemma4Config& config, const LayerConfig& layer);

  std::vector<WeightSpec> weights_;
  std::vector<std::string> redundant_;
};

}  // namespace qat
