#include "ptq/gptq.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/div.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/outer.h>

#include <algorithm>
#include <cstdint>

#include "core/error.h"
#include "fake_quant/tensor_values.h"
#include "quant/grid.h"
#include "quant/weighted_blocks.h"

namespace qat {

namespace {

constexpr int64_t kColumns = 128;  // whose errors are carried on together
constexpr int64_t kRowsPerThread = 1024;

// The upper Cholesky factor of the inverse of the damped moments (fp32); undefined if they are not positive definite.
at::Tensor inverse_factor(const at::Tensor& moments, double damping) {
  at::Tensor damped = moments.to(at::kDouble).clone();
  at::Tensor diagonal = damped.diagonal();
  diagonal.add_(damping * diagonal.mean());
  const auto [factor, failed] = at::linalg_cholesky_ex(damped);
  if (failed.item<int32_t>() != 0) return {};
  const auto [inverse_of, failed_too] = at::linalg_cholesky_ex(at::cholesky_inverse(factor), /*upper=*/true);
  return failed_too.item<int32_t>() == 0 && inverse_of.isfinite().all().item<bool>() ? inverse_of.to(at::kFloat)
                                                                                     : at::Tensor();
}

at::Tensor inverse_factor_with_growing_damping(const at::Tensor& moments, double damping) {
  for (; damping <= 1; damping *= 10) {
    at::Tensor factor = inverse_factor(moments, damping);
    if (factor.defined()) return factor;
  }
  return {};
}

// The nearest values on the grid; both [n], contiguous.
at::Tensor rounded(const at::Tensor& values, const at::Tensor& scales) {
  at::Tensor result = at::empty_like(values);
  const auto from = values_of<const float>(values);
  const auto under = values_of<const Float16>(scales);
  const auto to = values_of<float>(result);
  at::parallel_for(0, values.numel(), kRowsPerThread, [&](int64_t begin, int64_t end) {
    const auto first = static_cast<size_t>(begin);
    const auto count = static_cast<size_t>(end - begin);
    nearest_q4_0_values(from.subspan(first, count), under.subspan(first, count), to.subspan(first, count));
  });
  return result;
}

}  // namespace

std::optional<at::Tensor> gptq(const at::Tensor& weight, const at::Tensor& scales, const at::Tensor& second_moments,
                               const GptqOptions& options) {
  const int64_t width = weight.size(1);
  QAT_CHECK(second_moments.size(0) == width && scales.size(1) * grid::kBlock == width);
  const at::Tensor order = options.orders_by_activation
                               ? at::argsort(second_moments.diagonal(), /*stable=*/true, -1, /*descending=*/true)
                               : at::arange(width, at::kLong);
  const at::Tensor moments = second_moments.index_select(0, order).index_select(1, order);
  const at::Tensor factor = inverse_factor_with_growing_damping(moments, options.damping);
  if (!factor.defined()) return std::nullopt;

  // A row of these is a column of the weight, in the order of rounding.
  at::Tensor columns = weight.t().index_select(0, order).contiguous();
  const at::Tensor scales_of_columns = scales.t().index_select(0, at::div(order, grid::kBlock, "floor")).contiguous();
  for (int64_t first = 0; first < width; first += kColumns) {
    const int64_t end = std::min(first + kColumns, width);
    at::Tensor errors = at::empty_like(columns.narrow(0, first, end - first));
    for (int64_t i = first; i < end; ++i) {
      const at::Tensor value = columns.select(0, i);
      const at::Tensor on_grid = rounded(value, scales_of_columns.select(0, i));
      const at::Tensor error = errors.select(0, i - first);
      error.copy_((value - on_grid) / factor[i][i].item<float>());
      columns.narrow(0, i, end - i).sub_(at::outer(factor.select(0, i).narrow(0, i, end - i), error));
      value.copy_(on_grid);
    }
    if (end < width) {
      columns.narrow(0, end, width - end)
          .sub_(at::mm(factor.narrow(0, first, end - first).narrow(1, end, width - end).t(), errors));
    }
  }
  return columns.index_select(0, at::argsort(order)).t().contiguous();
}

}  // namespace qat
