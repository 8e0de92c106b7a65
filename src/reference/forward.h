// The forward pass of Gemma 3 and 4 text models over weights in a file, in the order of operations that llama.cpp and
// transformers share (gemma4_architecture.md 2; src/models/gemma4.cpp of llama.cpp). What differs between them is in
// the Arithmetic.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "quant/key_value_rotation.h"
#include "reference/arithmetic.h"
#include "reference/linear_observer.h"
#include "reference/matrix.h"
#include "reference/reference_weights.h"

namespace qat {

// Keys and values of a growing sequence: one cache per layer that has own ones.
struct SequenceState {
  std::vector<std::optional<KeyValueCache>> caches;
  int64_t length = 0;
  CacheObserver* observer = nullptr;
  LinearObserver* linears = nullptr;
};

class Forward {
 public:
  // Resolves every weight of the model once; `weights` and `arithmetic` must outlive this.
  Forward(const ReferenceWeights& weights, const Arithmetic& arithmetic);

  SequenceState start(CacheType type) const;
  enum class Rows { All, Last };
  // Appends tokens to the sequence; hidden values after the final norm of all of them or of the last one only:
  // [rows, hidden]. Throws Error for an id outside the vocabulary.
  Matrix hidden(std::span<const int32_t> tokens, SequenceState& state, Rows wanted) const;
  // Logits of rows of hidden values: [rows, vocabulary].
  Matrix logits(const Matrix& hidden) const;

 private:
  struct Experts {
    WeightView router, gate_up, down;
    std::vector<float> router_scale, expert_scale, dense_post_norm, pre_norm, post_norm;
  };
  struct PerLayerInput {
    WeightView gate, projection;
    std::vector<float> post_norm;
  };
  struct Layer {
    LayerConfig facts;
    std::vector<float> attention_norm, query_norm, key_norm, attention_post_norm, mlp_norm, mlp_post_norm;
    WeightView query, key, value, output, gate, up, down;
    std::optional<Experts> experts;
    std::optional<PerLayerInput> per_layer;
    float scalar = 1.0f;
  };

  Layer resolve(const LayerConfig& facts) const;
  Matrix linear(const Matrix& x, const WeightView& weight, const SequenceState& state) const;
  Matrix product(const Matrix& x, const WeightView& weight) const;
  Matrix per_layer_rows(std::span<const int32_t> tokens) const;
  Matrix per_layer_inputs(std::span<const int32_t> tokens, const Matrix& embedded, const SequenceState& state) const;
  Matrix attention(const Layer& layer, const Matrix& x, SequenceState& state) const;
  KeyValueRotation rotation_of(const Layer& layer, const KeyValueCache& cache) const;
  void append_keys(const Layer& layer, const Matrix& x, SequenceState& state, KeyValueCache& cache) const;
  Matrix mlp(const Layer& layer, const Matrix& x, const SequenceState& state) const;
  Matrix mlp_with_experts(const Layer& layer, const Matrix& residual, const SequenceState& state) const;
  Matrix expert_outputs(const Experts& experts, const Matrix& residual, Matrix x) const;
  void run_layer(const Layer& layer, const Matrix& per_layer_inputs, Rows wanted, Matrix& x,
                 SequenceState& state) const;
  void norm(Matrix& x, const std::vector<float>& weight) const;

  const ReferenceWeights& weights_;
  const Gemma4Config& config_;
  const Arithmetic& arithmetic_;
  float epsilon_;
  WeightView embedding_, head_, per_layer_projection_;
  std::vector<WeightView> per_layer_tables_;
  std::vector<float> per_layer_norm_, final_norm_;
  std::vector<Layer> layers_;
};

}  // namespace qat
