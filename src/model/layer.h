// One decoder layer: gemma4_architecture.md 2.4, 2.5. Internal to src/model.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "model/gemma4_model.h"
#include "model/recompute.h"

namespace qat {

// The tokens that a layer computes: their positions in their documents and the documents' bounds.
struct TokenRows {
  at::Tensor positions;  // fp32 [T]
  const std::vector<int64_t>& document_starts;
  // By document: one before it whose tokens come before its own, which continues none itself. Empty: there are no such.
  std::span<const std::optional<size_t>> continued = {};
};

// Keys and values of a layer that decoding has seen; of a sliding layer only those that a later query can still see.
class KeyValueCache {
 public:
  explicit KeyValueCache(int64_t window) : window_(window) {}
  // All keys and values that the added tokens can see, theirs last. Valid until the next call.
  KeyValue extend(const KeyValue& added);

 private:
  KeyValue extend_window(const KeyValue& added);
  KeyValue extend_all(const KeyValue& added);

  int64_t window_;
  int64_t length_ = 0;
  KeyValue stored_;  // a full layer's has room for more than `length_` rows
};

struct Gemma4Model::Layer {
  LayerConfig config;
  bool is_donor = false;  // a later layer reads this one's keys and values
  // Null where the layer has none.
  Projection* query = nullptr;
  Projection* key = nullptr;
  Projection* value = nullptr;
  Projection* attention_output = nullptr;
  Projection* mlp_gate = nullptr;
  Projection* mlp_up = nullptr;
  Projection* mlp_down = nullptr;
  Projection* per_layer_gate = nullptr;
  Projection* per_layer_projection = nullptr;
  Projection* router = nullptr;
  Projection* expert_gate_up = nullptr;
  Projection* expert_down = nullptr;
  // Undefined where the layer has none.
  at::Tensor input_norm;
  at::Tensor query_norm;
  at::Tensor key_norm;
  at::Tensor post_attention_norm;
  at::Tensor pre_mlp_norm;
  at::Tensor post_mlp_norm;
  at::Tensor post_dense_norm;  // of the dense branch beside experts
  at::Tensor pre_experts_norm;
  at::Tensor post_experts_norm;
  at::Tensor post_per_layer_norm;
  at::Tensor router_scale;
  at::Tensor expert_scale;
  at::Tensor layer_scalar;
  std::shared_ptr<ActivationTransform> key_transform;
  std::shared_ptr<ActivationTransform> value_transform;

  // Replaces state.hidden by this layer's output. With a cache, keys and values of earlier tokens come from there, and
  // no document continues another.
  void forward(const Gemma4Config& model, LayerInputs& state, const TokenRows& rows, KeyValueCache* cache) const;
  // The same without a cache, computed again in the backward pass (recompute.h). `model` must outlive that pass.
  void forward_keeping_inputs(const Gemma4Config& model, LayerInputs& state, const TokenRows& rows,
                              const Provision& weights) const;
  // The matrices that it has.
  std::vector<const Projection*> projections() const;

 private:
  at::Tensor norm(const Gemma4Config& model, const at::Tensor& x, const at::Tensor& weight) const;
  KeyValue own_key_value(const Gemma4Config& model, const at::Tensor& normed, const TokenRows& rows) const;
  at::Tensor attend(const Gemma4Config& model, LayerInputs& state, const at::Tensor& normed, const TokenRows& rows,
                    KeyValueCache* cache) const;
  at::Tensor feed_forward(const Gemma4Config& model, const at::Tensor& residual) const;
  at::Tensor experts(const Gemma4Config& model, const at::Tensor& residual) const;
  at::Tensor per_layer_branch(const Gemma4Config& model, const at::Tensor& hidden, const at::Tensor& input) const;
};

}  // namespace qat
