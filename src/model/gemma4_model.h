// Gemma computed with LibTorch on one device: plain code that follows transformers' arithmetic (gemma4_architecture.md
// 2). It knows nothing of training or quantization; both enter through the slots of Projection and LayerSlots.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gemma4/config.h"
#include "gemma4/weight_table.h"
#include "io/tensor_source.h"
#include "model/projection.h"

namespace qat {

// Documents packed one after another into one row of T tokens. A document sees only itself; its positions start at 0.
struct PackedTokens {
  at::Tensor tokens;                     // int64 [T]
  std::vector<int64_t> document_starts;  // offsets, the first 0, then each next document's; the last entry is T

  static PackedTokens single(at::Tensor tokens);
};

// Keys and values of one layer on their way to attention: [T, key_value_heads, head_dim], keys rotated.
struct KeyValue {
  at::Tensor key;
  at::Tensor value;
};

// What flows from layer to layer, so that layers can be run (and streamed, and checkpointed) one at a time: shared keys
// and values are explicit inputs and outputs.
struct LayerInputs {
  at::Tensor hidden;                             // [T, hidden]
  std::vector<at::Tensor> per_layer_inputs;      // by layer: [T, P]; empty without per-layer embeddings
  std::vector<std::optional<KeyValue>> donated;  // by layer index: pairs that later layers will read
};

using WeightChoice = std::function<bool(const WeightSpec&)>;

class Gemma4Model {
 public:
  // Parameters are allocated, not initialised. `dtype` (BFloat16 or Float) is that of parameters and activations.
  // `without_memory` (empty: none): matrices and tables whose parameter stays undefined until load_weights(), or
  // whoever fills the model, sets it. Parameters live on `device`, and so must the tokens that the model is given.
  Gemma4Model(Gemma4Config config, at::ScalarType dtype, const WeightChoice& without_memory = {},
              at::Device device = at::kCPU);
  ~Gemma4Model();
  Gemma4Model(const Gemma4Model&) = delete;
  Gemma4Model& operator=(const Gemma4Model&) = delete;

  const Gemma4Config& config() const { return config_; }
  const WeightTable& weights() const { return weights_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }

  // Every weight with its name (WeightTable's), in WeightTable order. Leaves; requires_grad is the caller's to set. A
  // stored master is undefined here.
  std::vector<std::pair<std::string, at::Tensor>> parameters() const;
  at::Tensor parameter(std::string_view name) const;
  // The same with the change that its slot adds (LoRA): what quantizers read and checkpoints store.
  at::Tensor merged_parameter(std::string_view name) const;
  // The matrix or table of this name, to fill its slots. Throws Error if there is none.
  Projection& projection(std::string_view name);
  const Projection& projection(std::string_view name) const;
  // Slots for the keys (after norm and rotation) and values of a layer that has its own.
  std::shared_ptr<ActivationTransform>& key_transform(int64_t layer);
  std::shared_ptr<ActivationTransform>& value_transform(int64_t layer);

  // With `wanted`, a layer of a pass that records gradients keeps only its inputs and is computed again in the backward
  // pass: less memory, a forward pass more, the same bits. Weights and slots must not change between the two.
  void recompute_layers(bool wanted) { recomputes_layers_ = wanted; }

  // Hidden states after the final norm: [T, hidden].
  at::Tensor hidden_states(const PackedTokens& batch) const;
  // What hidden_states() does for other processes, whose layers read weights of this one, and nothing else.
  void lend_weights() const;
  // The same in steps.
  LayerInputs embed(const PackedTokens& batch) const;
  void run_layer(int64_t layer, LayerInputs& state, const PackedTokens& batch) const;
  at::Tensor final_norm(const at::Tensor& hidden) const;

  // Logits with soft-cap, fp32 [n, vocabulary], of rows of hidden states [n, hidden]. Callers pass few rows at a time.
  at::Tensor logits(const at::Tensor& hidden) const;
  // The projection of the head: the token embedding where it is tied.
  const Projection& head() const;

 private:
  friend class ModelSession;
  struct Layer;
  struct LayerLoan;
  Layer make_layer(const LayerConfig& layer_config);
  // The weights of a layer, arrived; those of the one that is computed next start on their way.
  std::shared_ptr<void> borrow_weights(int64_t layer, int64_t next) const;

  Gemma4Config config_;
  WeightTable weights_;
  at::ScalarType dtype_;
  at::Device device_;
  // Owned here, referred to by the layers; a deque keeps addresses.
  std::deque<Projection> projections_;
  std::vector<std::pair<std::string, at::Tensor>> vectors_;
  std::vector<Layer> layers_;
  bool recomputes_layers_ = false;
  mutable std::shared_ptr<LayerLoan> next_loan_;  // on its way
};

// The weights that a model of this dtype may read in the file that holds them: in BF16 all matrices and tables, in
// Float tables that are only looked up, whose rows are converted one by one.
WeightChoice readable_in_file(const WeightTable& table, at::ScalarType dtype);

// Copies every weight of the table from the source (HF names under any prefix, or none), converting to the model's
// dtype. A parameter without memory becomes the source's own mapped bytes if they are BF16 (only to be read, as long as
// the source lives), on another device than the CPU a BF16 copy of them, else a converted copy; `loaded` may then put
// something else in its place before the next one is read. Throws Error listing all missing or wrongly shaped weights
// together, and naming a tensor with NaN or Inf.
void load_weights(Gemma4Model& model, const TensorSource& source,
                  const std::function<void(const WeightSpec&, Projection&)>& loaded = {});

// The head of a model without the rest. Its weight lies in the mapped file, which must stay open, where that has this
// dtype and the device is the CPU; else it is a copy. Throws Error as load_weights() does, but does not look for NaN
// and Inf.
Projection load_head(const WeightTable& table, const TensorSource& source, at::ScalarType dtype, at::Device device);

// Random initial weights as in transformers: normal(0, 0.02) for matrices and tables, 1 (0 with norm_offset 1) for
// norms, 1 for scales, zero for the pad row. Seeded.
// A parameter without memory gets some; `initialized` may then put something else in its place before the next is
// drawn.
void initialize_weights(Gemma4Model& model, uint64_t seed,
                        const std::function<void(const WeightSpec&, Projection&)>& initialized = {});

}  // namespace qat
