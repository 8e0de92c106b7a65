// A checkpoint of a mobile plan as the mobile exporters and their verification read it: codes and scales of every
// quantized weight, made from the mapped masters in pieces.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "gemma4/model_folder.h"
#include "gemma4/static_scales.h"

namespace qat {

class MobileCheckpoint {
 public:
  // `folder` must outlive this. Throws Error that lists together what keeps the checkpoint from being exported: a plan
  // with schemes that mobile formats do not know, scales that are missing, not finite, zero or negative, edges and caches
  // that were never calibrated.
  explicit MobileCheckpoint(const ModelFolder& folder);

  const ModelFolder& folder() const { return folder_; }
  const Gemma4Config& config() const { return folder_.config(); }
  const WeightTable& table() const { return folder_.table(); }

  // Int2, Int4 or Int8; or BF16 (a matrix left unquantized) or F32 (a vector).
  const QuantScheme& scheme_of(const WeightSpec& weight) const;
  // One scale per `weight.scale_width` values, row-major. Empty for unquantized weights.
  std::span<const float> scales(const WeightSpec& weight) const;
  // Codes of rows [first_row, first_row + rows), one signed byte per value: `codes` has rows * columns.
  void codes(const WeightSpec& weight, int64_t first_row, int64_t rows, std::span<int8_t> codes) const;
  // Values of rows of an unquantized weight: BF16 numbers, widened.
  void values(const WeightSpec& weight, int64_t first_row, int64_t rows, std::span<float> values) const;

  LinearScales linear_scales(const WeightSpec& weight) const;
  CacheScales cache_scales(int64_t layer) const;  // of a layer with own keys and values

 private:
  const ModelFolder& folder_;
};

}  // namespace qat
