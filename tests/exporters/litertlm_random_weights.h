// A model of random codes and scales in memory, for tests of the .litertlm exporter.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/random.h"
#include "exporters/litertlm_weights.h"

namespace qat::testing {

class RandomWeights final : public LitertlmWeights {
 public:
  RandomWeights(const Gemma4Config& config, uint64_t seed) : config_(config), table_(config_), seed_(seed) {
    SplitMix64 random(seed);
    for (const WeightSpec& weight : table_.weights()) {
      std::vector<float>& scales = scales_[weight.name];
      if (!scheme_of(weight).has_row_scales()) continue;
      scales.resize(static_cast<size_t>(weight.row_scales()));
      for (float& scale : scales) scale = static_cast<float>(0.01 + 0.02 * random.uniform());
    }
  }

  LinearScales edge{0.05f, 0.04f};
  CacheScales cache{0.02f, 0.03f};

  const Gemma4Config& config() const override { return config_; }
  const WeightTable& table() const override { return table_; }

  const QuantScheme& scheme_of(const WeightSpec& weight) const override {
    if (!is_matrix(weight.role)) return scheme(Scheme::F32);
    switch (weight.role) {
      case WeightRole::PerLayerModelProjection:
        return scheme(Scheme::BF16);
      case WeightRole::TokenEmbedding:
      case WeightRole::OutputHead:
        return scheme(Scheme::Int2);
      case WeightRole::PerLayerInputGate:
        return scheme(Scheme::Int8);
      default:
        return scheme(Scheme::Int4);
    }
  }

  std::span<const float> scales(const WeightSpec& weight) const override { return scales_.at(weight.name); }

  void codes(const WeightSpec& weight, int64_t first_row, int64_t rows, std::span<int8_t> codes) const override {
    const QuantScheme& form = scheme_of(weight);
    for (int64_t i = 0; i < rows * weight.columns(); ++i) {
      const auto range = static_cast<uint64_t>(form.code_max - form.code_min + 1);
      codes[static_cast<size_t>(i)] = static_cast<int8_t>(
          form.code_min + static_cast<int>(number(weight, first_row * weight.columns() + i) % range));
    }
  }

  // Eight significant bits, like BF16.
  void values(const WeightSpec& weight, int64_t first_row, int64_t rows, std::span<float> values) const override {
    for (int64_t i = 0; i < rows * weight.columns(); ++i) {
      const auto digits = static_cast<float>(number(weight, first_row * weight.columns() + i) % 256);
      values[static_cast<size_t>(i)] = (digits - 100) / 128 * value_size;
    }
  }

  float value_size = 1;

  LinearScales linear_scales(const WeightSpec& weight) const override {
    const bool has_edges = scheme_of(weight).has_row_scales() && weight.role != WeightRole::TokenEmbedding &&
                           weight.role != WeightRole::OutputHead && weight.role != WeightRole::PerLayerEmbedding;
    return has_edges ? edge : LinearScales{};
  }
  CacheScales cache_scales(int64_t) const override { return cache; }

 private:
  uint64_t number(const WeightSpec& weight, int64_t index) const {
    return SplitMix64(seed_ * 1000003 + std::hash<std::string>()(weight.name) + static_cast<uint64_t>(index)).next();
  }

  Gemma4Config config_;
  WeightTable table_;
  uint64_t seed_;
  std::map<std::string, std::vector<float>, std::less<>> scales_;
};

}  // namespace qat::testing
