// A Gemma model as a GGUF file describes it: metadata resolved into the same Gemma4Config that config.json gives, and
// every weight of its table found in the file with the right shape. Keys: gguf_q4_0.md 4.2 (src/llama-arch.cpp of
// llama.cpp).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "gemma4/config.h"
#include "gemma4/weight_table.h"
#include "io/gguf.h"
#include "reference/gguf_adapter.h"
#include "reference/reference_weights.h"

namespace qat {

// The config that a GGUF file's metadata describes. Norm weights in GGUF already contain Gemma 3's offset, so
// norm_offset is 0. Throws Error naming the key that is missing or contradicts another.
Gemma4Config config_from_gguf(const GgufFile& file);

class GgufModel final : public ReferenceWeights {
 public:
  // `file` and `adapter` (null: none) must outlive this. Throws Error if a weight is missing, has another shape, or is
  // encoded in a scheme that its columns do not divide into, and for an adapter of another model.
  explicit GgufModel(const GgufFile& file, const GgufAdapter* adapter = nullptr);

  const Gemma4Config& config() const override { return config_; }
  const std::string& where() const override { return where_; }
  CacheScales cache_scales(int64_t) const override { return {}; }

 private:
  void add(const GgufFile& file, const WeightSpec& weight);
  void add_changes(const GgufAdapter& adapter, const WeightTable& table);

  std::string where_;
  Gemma4Config config_;
};

}  // namespace qat
