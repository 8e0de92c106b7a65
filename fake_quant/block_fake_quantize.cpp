#include "fake_quant/block_fake_quantize.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "core/error.h"
#include "fake_quant/block_values.h"
#include "fake_quant/tensor_values.h"
#include "quant/block_scales.h"
#include "quant/grid.h"

namespace qat {

namespace {

constexpr int64_t kGrainBlocks = 1024;
constexpr auto kBlock = static_cast<size_t>(grid::kBlock);

// Writes the masked gradient and returns that of log_change.
template <class Value>
at::Tensor gradients(const at::Tensor& master, const at::Tensor& incoming, const at::Tensor& scale_tensor,
                     const at::Tensor& masked) {
  const at::Tensor input = as_bfloat16(master);
  const auto values = values_of<const BFloat16>(input);
  const auto gradient = values_of<const Value>(incoming);
  const auto scales = values_of<const Float16>(scale_tensor);
  const auto results = values_of<Value>(masked);
  at::Tensor of_changes = at::empty({scale_tensor.numel()}, at::kFloat);
  const auto sums = values_of<float>(of_changes);
  const double factor = 1.0 / std::sqrt(static_cast<double>(grid::kBlock * scheme(Scheme::Q4_0).code_max));
  at::parallel_for(0, scale_tensor.numel(), kGrainBlocks, [&](int64_t begin, int64_t end) {
    const auto first = static_cast<size_t>(begin), count = static_cast<size_t>(end - begin);
    block_scale_gradients(values.subspan(first * kBlock, count * kBlock),
                          gradient.subspan(first * kBlock, count * kBlock), scales.subspan(first, count),
                          results.subspan(first * kBlock, count * kBlock), sums.subspan(first, count));
    for (size_t i = first; i < first + count; ++i) {
      sums[i] = static_cast<float>(static_cast<double>(sums[i]) * factor * static_cast<double>(to_float(scales[i])));
    }
  });
  return of_changes;
}

struct BlockFakeQuantize : torch::autograd::Function<BlockFakeQuantize> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& master, const at::Tensor&,
                            const at::Tensor& scales, const at::Tensor& value) {
    context->save_for_backward({master, scales});
    // A view, so that the node never owns the cached tensor itself.
    return value.alias();
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list incoming) {
    const auto saved = context->get_saved_variables();
    const at::Tensor& master = saved[0];
    const at::Tensor gradient = incoming[0].to(master.scalar_type()).contiguous();
    at::Tensor masked = at::empty_like(gradient);
    const at::Tensor of_changes = master.scalar_type() == at::kBFloat16
                                      ? gradients<BFloat16>(master, gradient, saved[1], masked)
                                      : gradients<float>(master, gradient, saved[1], masked);
    return {masked, of_changes, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor block_fake_quantize(const at::Tensor& master, const at::Tensor& log_change, const at::Tensor& scales,
                               const at::Tensor& value) {
  QAT_CHECK(master.sizes() == value.sizes() && master.dtype() == value.dtype());
  QAT_CHECK(scales.scalar_type() == at::kHalf && scales.numel() * grid::kBlock == master.numel());
  return BlockFakeQuantize::apply(master, log_change, scales, value.detach());
}

}  // namespace qat
