#include "ptq/sign_descent.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "core/error.h"
#include "fake_quant/tensor_values.h"
#include "quant/block_scales.h"
#include "quant/grid.h"
#include "quant/weighted_blocks.h"

namespace qat {

namespace {

constexpr int64_t kRowsPerThread = 16;
constexpr double kSmallestFactor = 0.5, kLargestFactor = 1.5;  // of a block's scale

// What is learned of a weight.
struct Rounding {
  at::Tensor offsets;  // fp32 [out, in], in steps of the scale
  at::Tensor factors;  // fp32 [out, in / 32]
};

// Rows of tensors as spans of one piece of work.
template <class T>
std::span<T> rows_of(const at::Tensor& tensor, int64_t begin, int64_t end) {
  const auto width = static_cast<size_t>(tensor.size(1));
  return values_of<T>(tensor).subspan(static_cast<size_t>(begin) * width, static_cast<size_t>(end - begin) * width);
}

at::Tensor values_on_grid(const at::Tensor& weight, const at::Tensor& offsets, const at::Tensor& scales) {
  at::Tensor values = at::empty_like(weight);
  at::parallel_for(0, weight.size(0), kRowsPerThread, [&](int64_t begin, int64_t end) {
    offset_q4_0_values(rows_of<const float>(weight, begin, end), rows_of<const float>(offsets, begin, end),
                       rows_of<const Float16>(scales, begin, end), rows_of<float>(values, begin, end));
  });
  return values;
}

// The scales times their factors, as fp16 numbers; 0 stays.
at::Tensor scaled_by(const at::Tensor& scales, const at::Tensor& factors) {
  at::Tensor result = at::empty_like(scales);
  round_block_scales(values_of<const float>(scales.to(at::kFloat) * factors), values_of<Float16>(result));
  return result.masked_fill_(scales.eq(0), 0);
}

// One step against the signs of the gradient, which is given with respect to values on the grid.
void descend(Rounding& rounding, const at::Tensor& weight, const at::Tensor& scales, const at::Tensor& start_scales,
             const at::Tensor& gradient, double rate) {
  at::Tensor of_offsets = at::empty_like(rounding.offsets), of_scales = at::empty_like(rounding.factors);
  at::parallel_for(0, weight.size(0), kRowsPerThread, [&](int64_t begin, int64_t end) {
    offset_q4_0_gradients(rows_of<const float>(weight, begin, end), rows_of<const float>(rounding.offsets, begin, end),
                          rows_of<const Float16>(scales, begin, end), rows_of<const float>(gradient, begin, end),
                          rows_of<float>(of_offsets, begin, end), rows_of<float>(of_scales, begin, end));
  });
  rounding.offsets.sub_(of_offsets.sign_(), rate).clamp_(-0.5, 0.5);
  rounding.factors.sub_(of_scales.mul_(start_scales).sign_(), rate).clamp_(kSmallestFactor, kLargestFactor);
}

// The best of every row so far.
struct Best {
  OnGrid on_grid;
  at::Tensor errors;  // fp32 [out, 1]

  void offer(const OnGrid& now, const at::Tensor& errors_now) {
    if (!errors.defined()) {
      on_grid = now;
      errors = errors_now;
      return;
    }
    const at::Tensor is_better = errors_now < errors;
    on_grid.values = at::where(is_better, now.values, on_grid.values);
    on_grid.scales = at::where(is_better, now.scales, on_grid.scales);
    errors = at::where(is_better, errors_now, errors);
  }
};

}  // namespace

OnGrid sign_descent(const at::Tensor& weight, const at::Tensor& scales, const at::Tensor& second_moments,
                    const SignDescentOptions& options) {
  QAT_CHECK(second_moments.size(0) == weight.size(1) && scales.size(1) * grid::kBlock == weight.size(1));
  QAT_CHECK(options.steps > 0);
  Rounding rounding{at::zeros_like(weight), at::ones_like(scales, at::kFloat)};
  Best best;
  for (int64_t step = 0;; ++step) {
    const at::Tensor scales_now = scaled_by(scales, rounding.factors);
    const OnGrid now{values_on_grid(weight, rounding.offsets, scales_now), scales_now};
    const at::Tensor difference = now.values - weight;
    const at::Tensor gradient = at::mm(difference, second_moments);  // half of it; its signs are all that is read
    best.offer(now, (gradient * difference).sum(1, /*keepdim=*/true));
    if (step == options.steps) return best.on_grid;
    const double share_left = 1 - static_cast<double>(step) / static_cast<double>(options.steps);
    descend(rounding, weight, scales_now, scales, gradient, share_left / static_cast<double>(options.steps));
  }
}

}  // namespace qat
