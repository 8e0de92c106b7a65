#include "ptq/on_grid.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "fake_quant/block_values.h"
#include "fake_quant/tensor_values.h"
#include "quant/block_scales.h"
#include "quant/grid.h"
#include "quant/weighted_blocks.h"

namespace qat {

namespace {

constexpr int64_t kRowsPerThread = 16;

at::Tensor scales_for(const at::Tensor& weight) {
  return at::empty({weight.size(0), weight.size(1) / grid::kBlock}, at::kHalf);
}

}  // namespace

OnGrid by_importance(const at::Tensor& weight, const at::Tensor& importance) {
  const auto width = static_cast<size_t>(weight.size(1));
  const size_t blocks = width / grid::kBlock;
  OnGrid result{at::empty_like(weight), scales_for(weight)};
  const auto values = values_of<const float>(weight);
  const auto results = values_of<float>(result.values);
  const auto scales = values_of<Float16>(result.scales);
  at::parallel_for(0, weight.size(0), kRowsPerThread, [&](int64_t begin, int64_t end) {
    for (auto row = static_cast<size_t>(begin); row < static_cast<size_t>(end); ++row) {
      quantize_row_by_importance(values.subspan(row * width, width), values_of<const float>(importance),
                                 scales.subspan(row * blocks, blocks), results.subspan(row * width, width));
    }
  });
  return result;
}

OnGrid by_rule(const at::Tensor& weight) {
  OnGrid result{block_values(Scheme::Q4_0, weight, {}), scales_for(weight)};
  rule_block_scales(values_of<const BFloat16>(as_bfloat16(weight)), values_of<Float16>(result.scales));
  return result;
}

}  // namespace qat
