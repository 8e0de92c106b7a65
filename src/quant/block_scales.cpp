#include "quant/block_scales.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "core/error.h"
#include "quant/block_scale_kernels.h"
#include "quant/grid.h"
#include "quant/scalar_codec.h"

namespace qat {

namespace {

constexpr float kSmallestScale = 0x1p-24f;  // the first fp16 above 0
constexpr float kLargestScale = 65504.0f;   // the last finite one

template <class Value>
void gradients(std::span<const BFloat16> values, std::span<const Value> gradient, std::span<const Float16> scales,
               std::span<Value> masked, std::span<float> of_scales) {
  QAT_CHECK(values.size() == scales.size() * grid::kBlock && of_scales.size() == scales.size());
  QAT_CHECK(gradient.size() == values.size() && masked.size() == values.size());
  kernels::block_scale_gradients(values.data(), gradient.data(), scales.size(), scales.data(), masked.data(),
                                 of_scales.data());
}

}  // namespace

void rule_block_scales(std::span<const BFloat16> values, std::span<Float16> scales) {
  QAT_CHECK(values.size() == scales.size() * grid::kBlock);
  std::array<float, grid::kBlock> block;
  for (size_t i = 0; i < scales.size(); ++i) {
    std::transform(values.begin() + static_cast<std::ptrdiff_t>(i * block.size()),
                   values.begin() + static_cast<std::ptrdiff_t>((i + 1) * block.size()), block.begin(),
                   [](BFloat16 value) { return to_float(value); });
    scales[i] = scalar::q4_0_encoding_scale(scalar::Block(block), nullptr).stored;
  }
}

void search_block_scales(std::span<const BFloat16> values, std::span<Float16> scales) {
  QAT_CHECK(values.size() == scales.size() * grid::kBlock);
  kernels::search_q4_0_scales(values.data(), scales.size(), scales.data());
}

void round_block_scales(std::span<const float> scales, std::span<Float16> rounded) {
  QAT_CHECK(scales.size() == rounded.size());
  std::transform(scales.begin(), scales.end(), rounded.begin(), [](float scale) {
    return to_float16(std::copysign(std::clamp(std::fabs(scale), kSmallestScale, kLargestScale), scale));
  });
}

void block_scale_gradients(std::span<const BFloat16> values, std::span<const float> gradient,
                           std::span<const Float16> scales, std::span<float> masked, std::span<float> of_scales) {
  gradients(values, gradient, scales, masked, of_scales);
}

void block_scale_gradients(std::span<const BFloat16> values, std::span<const BFloat16> gradient,
                           std::span<const Float16> scales, std::span<BFloat16> masked, std::span<float> of_scales) {
  gradients(values, gradient, scales, masked, of_scales);
}

}  // namespace qat
