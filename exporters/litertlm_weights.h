// What the .litertlm exporter asks a model for: codes and scales of its weights, scales of its edges and caches.
#pragma once

#include <cstdint>
#include <span>

#include "gemma4/config.h"
#include "gemma4/static_scales.h"
#include "gemma4/weight_table.h"
#include "quant/scheme.h"

namespace qat {

class LitertlmWeights {
 public:
  virtual ~LitertlmWeights() = default;

  virtual const Gemma4Config& config() const = 0;
  virtual const WeightTable& table() const = 0;

  // Int2, Int4 or Int8; or BF16 (a matrix left unquantized) or F32 (a vector).
  virtual const QuantScheme& scheme_of(const WeightSpec& weight) const = 0;
  // One scale per `weight.scale_width` values, row-major. Empty for unquantized weights.
  virtual std::span<const float> scales(const WeightSpec& weight) const = 0;
  // Codes of rows [first_row, first_row + rows), one signed byte per value.
  virtual void codes(const WeightSpec& weight, int64_t first_row, int64_t rows, std::span<int8_t> codes) const = 0;
  // Values of rows of an unquantized weight.
  virtual void values(const WeightSpec& weight, int64_t first_row, int64_t rows, std::span<float> values) const = 0;

  virtual LinearScales linear_scales(const WeightSpec& weight) const = 0;  // 0: this end is not quantized
  virtual CacheScales cache_scales(int64_t layer) const = 0;  // of a layer with own keys and values; 0: fp32
};

}  // namespace qat
