// Weights as trainers leave them on 4-bit lattices: the ways to choose a scale of qat_methods.md 2.4, for property
// tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "quant/block_scales.h"
#include "quant/scalar_codec.h"
#include "quant/weight_rows.h"

namespace qat::test {

struct Convention {
  const char* name;
  float (*step)(const std::vector<float>& weights);
  int code_min;
};

inline float largest(const std::vector<float>& weights) {
  float result = 0;
  for (const float weight : weights) result = std::max(result, std::fabs(weight));
  return result;
}

inline float searched(const std::vector<float>& weights) {
  Float16 scale{};
  search_block_scales(to_bfloat16(weights), {&scale, 1});
  return to_float(scale);
}

inline const Convention kConventions[]{
    {"signed extremum / -8", [](const auto& weights) { return grid::q4_0_scale(scalar::Block(weights)); }, -8},
    {"largest magnitude / 7", [](const auto& weights) { return largest(weights) / 7; }, -7},
    {"largest magnitude / 7.5", [](const auto& weights) { return largest(weights) / 7.5F; }, -8},
    {"largest magnitude / 8", [](const auto& weights) { return largest(weights) / 8; }, -8},
    {"clipped, 0.8 of it", [](const auto& weights) { return largest(weights) / 10; }, -8},
    {"least squared error", searched, -8},
};

enum class StepType { Float16, BFloat16, Float32 };

inline float rounded_step(float step, StepType type) {
  if (type == StepType::Float16) return to_float(to_float16(step));
  return type == StepType::BFloat16 ? to_float(qat::to_bfloat16(step)) : step;
}

enum class Law { Gaussian, Student };

inline std::vector<float> draw_weights(Law law, SplitMix64& random) {
  std::vector<float> weights(32);
  for (float& weight : weights) {
    weight = 0.02F * gaussian(random);
    if (law == Law::Gaussian) continue;
    float squares = 0;  // four degrees of freedom
    for (int i = 0; i < 4; ++i) squares += std::pow(gaussian(random), 2.0F);
    weight /= std::sqrt(squares / 4);
  }
  return weights;
}

// Fake-quantized weights as they were before they were rounded to the type of a file.
struct Trained {
  std::vector<float> values;
  std::vector<int8_t> codes;
};

inline Trained train(const Convention& convention, StepType type, Law law, size_t blocks, SplitMix64& random) {
  Trained trained;
  for (size_t i = 0; i < blocks; ++i) {
    const auto weights = draw_weights(law, random);
    const float step = rounded_step(convention.step(weights), type);
    for (const float weight : weights) {
      const int code = std::clamp(static_cast<int>(std::nearbyint(weight / step)), convention.code_min, 7);
      trained.codes.push_back(static_cast<int8_t>(code));
      trained.values.push_back(step * static_cast<float>(code));
    }
  }
  return trained;
}

}  // namespace qat::test
