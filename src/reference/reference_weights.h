// Where the weights of a reference inference come from, whatever the container.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "gemma4/config.h"
#include "gemma4/static_scales.h"
#include "reference/weight_view.h"

namespace qat {

// The weights of WeightTable(config()), by their names there ("layers.3.self_attn.q_proj.weight").
class ReferenceWeights {
 public:
  virtual ~ReferenceWeights() = default;

  virtual const Gemma4Config& config() const = 0;
  // The file or folder, for messages.
  virtual const std::string& where() const = 0;
  const WeightView& weight(std::string_view name) const;
  // The same, decoded; for norms and scales. Norm weights contain the family's offset already.
  virtual std::vector<float> vector(std::string_view name) const;
  // Tables that hold a token's per-layer embeddings side by side: all layers in one, or one of each layer.
  virtual std::vector<WeightView> per_layer_tables() const { return {weight("embed_tokens_per_layer.weight")}; }
  // Static scales of the keys and values that a layer caches; zeros where the container has none.
  virtual CacheScales cache_scales(int64_t layer) const = 0;

 protected:
  std::map<std::string, WeightView, std::less<>> weights_;  // by WeightTable name; filled by the container's class
};

}  // namespace qat
