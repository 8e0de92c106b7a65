// A checkpoint of this program as the .litertlm exporter reads it.
#pragma once

#include "exporters/litertlm_weights.h"
#include "exporters/mobile_checkpoint.h"

namespace qat {

class LitertlmCheckpoint final : public LitertlmWeights {
 public:
  // `checkpoint` must outlive this.
  explicit LitertlmCheckpoint(const MobileCheckpoint& checkpoint) : checkpoint_(checkpoint) {}

  const Gemma4Config& config() const override { return checkpoint_.config(); }
  const WeightTable& table() const override { return checkpoint_.table(); }
  const QuantScheme& scheme_of(const WeightSpec& weight) const override { return checkpoint_.scheme_of(weight); }
  std::span<const float> scales(const WeightSpec& weight) const override { return checkpoint_.scales(weight); }
  void codes(const WeightSpec& weight, int64_t first_row, int64_t rows, std::span<int8_t> codes) const override {
    checkpoint_.codes(weight, first_row, rows, codes);
  }
  void values(const WeightSpec& weight, int64_t first_row, int64_t rows, std::span<float> values) const override {
    checkpoint_.values(weight, first_row, rows, values);
  }
  LinearScales linear_scales(const WeightSpec& weight) const override { return checkpoint_.linear_scales(weight); }
  CacheScales cache_scales(int64_t layer) const override { return checkpoint_.cache_scales(layer); }

 private:
  const MobileCheckpoint& checkpoint_;
};

}  // namespace qat
