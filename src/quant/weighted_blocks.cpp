#include "quant/weighted_blocks.h"

#include <array>
#include <cmath>
#include <cstdint>

#include "core/error.h"
#include "quant/grid.h"

namespace qat {

namespace {

constexpr size_t kValues = grid::kBlock;
constexpr float kSmallestMagnitude = 1e-15f;  // a block below it counts as zero (ggml's GROUP_MAX_EPS)

using Block = std::span<const float, kValues>;

// Sums over a block under codes -8..7: of weight * value * code, and of weight * code^2.
struct Fit {
  std::array<int8_t, kValues> codes;
  float products = 0;
  float squares = 0;

  Fit(Block values, Block weights, float inverse) {
    for (size_t i = 0; i < kValues; ++i) {
      codes[i] = grid::integer_code(values[i], inverse, -8, 7);
      const auto code = static_cast<float>(codes[i]);
      products += weights[i] * values[i] * code;
      squares += weights[i] * code * code;
    }
  }
};

float extremum_of(Block values) { return -8.0f * grid::q4_0_scale(values); }

void quantize_block(Block values, Block weights, Float16& scale, std::span<float, kValues> results) {
  const float extremum = extremum_of(values);
  if (std::fabs(extremum) < kSmallestMagnitude) {
    scale = to_float16(0.0f);
    for (float& result : results) result = 0.0f;
    return;
  }
  Fit best(values, weights, -8.0f / extremum);
  float best_scale = best.squares > 0 ? best.products / best.squares : 0.0f;
  float gain = best_scale * best.products;
  for (int step = -9; step <= 9; ++step) {
    if (step == 0) continue;
    const Fit fit(values, weights, -(8.0f + 0.1f * static_cast<float>(step)) / extremum);
    if (fit.squares > 0 && fit.products * fit.products > gain * fit.squares) {
      best = fit;
      best_scale = fit.products / fit.squares;
      gain = best_scale * fit.products;
    }
  }
  scale = to_float16(best_scale);
  for (size_t i = 0; i < kValues; ++i) results[i] = grid::integer_value(best.codes[i], to_float(scale));
}

}  // namespace

void quantize_row_by_importance(std::span<const float> values, std::span<const float> importance,
                                std::span<Float16> scales, std::span<float> results) {
  QAT_CHECK(values.size() == kValues * scales.size() && importance.size() == values.size() &&
            results.size() == values.size());
  float squares = 0;
  for (const float value : values) squares += value * value;
  const float mean = squares / static_cast<float>(values.size());
  std::array<float, kValues> weights;
  for (size_t block = 0; block < scales.size(); ++block) {
    const size_t first = block * kValues;
    for (size_t i = 0; i < kValues; ++i) {
      const float value = values[first + i];
      weights[i] = importance[first + i] * std::sqrt(mean + value * value);
    }
    quantize_block(values.subspan(first).first<kValues>(), weights, scales[block],
                   results.subspan(first).first<kValues>());
  }
}

void nearest_q4_0_values(std::span<const float> values, std::span<const Float16> scales, std::span<float> results) {
  QAT_CHECK(values.size() == scales.size() && values.size() == results.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const uint8_t code = grid::q4_0_code(values[i], grid::inverse_scale(to_float(scales[i])));
    results[i] = grid::q4_0_value(code, scales[i]);
  }
}

void offset_q4_0_values(std::span<const float> values, std::span<const float> offsets, std::span<const Float16> scales,
                        std::span<float> results) {
  QAT_CHECK(values.size() == kValues * scales.size() && offsets.size() == values.size() &&
            results.size() == values.size());
  for (size_t block = 0; block < scales.size(); ++block) {
    const float scale = to_float(scales[block]);
    const float inverse = grid::inverse_scale(scale);
    for (size_t i = block * kValues; i < (block + 1) * kValues; ++i) {
      results[i] = grid::q4_0_value(grid::q4_0_code(values[i] + offsets[i] * scale, inverse), scales[block]);
    }
  }
}

void offset_q4_0_gradients(std::span<const float> values, std::span<const float> offsets,
                           std::span<const Float16> scales, std::span<const float> gradient,
                           std::span<float> of_offsets, std::span<float> of_scales) {
  QAT_CHECK(values.size() == kValues * scales.size() && offsets.size() == values.size() &&
            gradient.size() == values.size());
  QAT_CHECK(of_offsets.size() == values.size() && of_scales.size() == scales.size());
  for (size_t block = 0; block < scales.size(); ++block) {
    const float scale = to_float(scales[block]);
    const float inverse = grid::inverse_scale(scale);
    float sum = 0;
    for (size_t i = block * kValues; i < (block + 1) * kValues; ++i) {
      const float moved = values[i] + offsets[i] * scale;
      const auto code = static_cast<float>(static_cast<int>(grid::q4_0_code(moved, inverse)) - 8);
      const bool inside = grid::q4_0_inside_range(moved, inverse);
      of_offsets[i] = inside ? gradient[i] * scale : 0.0f;
      sum += gradient[i] * (inside ? code - values[i] * inverse : code);
    }
    of_scales[block] = sum;
  }
}

}  // namespace qat
