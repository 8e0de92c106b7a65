// A checkpoint of a mobile plan as the mobile exporters and their verification read it: codes and scales of every
// quantized weight, made from the mapped masters in pieces.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "exporters/litertlm_weights.h"
#include "gemma4/model_folder.h"

namespace qat {

class MobileCheckpoint final : public LitertlmWeights {
 public:
  // `folder` must outlive this. Throws Error that lists together what keeps the checkpoint from being exported: a plan
  // with schemes that mobile formats do not know, scales that are missing, not finite, zero or negative, edges and
  // caches that were never calibrated.
  explicit MobileCheckpoint(const ModelFolder& folder);

  const ModelFolder& folder() const { return folder_; }
  const Gemma4Config& config() const override { return folder_.config(); }
  const WeightTable& table() const override { return folder_.table(); }

  const QuantScheme& scheme_of(const WeightSpec& weight) const override;
  std::span<const float> scales(const WeightSpec& weight) const override;
  // Throws Error naming the place of a master that is no finite number.
  void codes(const WeightSpec& weight, int64_t first_row, int64_t rows, std::span<int8_t> codes) const override;
  void values(const WeightSpec& weight, int64_t first_row, int64_t rows, std::span<float> values) const override;

  LinearScales linear_scales(const WeightSpec& weight) const override;
  CacheScales cache_scales(int64_t layer) const override;

 private:
  const ModelFolder& folder_;
};

}  // namespace qat
