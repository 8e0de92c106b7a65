#include "model/rms_norm.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "model/bfloat16_kernels.h"
#include "model/bfloat16_tensors.h"

namespace qat {

namespace {

// Written as one function to keep only x for the backward pass, not three fp32 intermediates.
class RmsNorm : public torch::autograd::Function<RmsNorm> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const std::optional<at::Tensor>& weight, double epsilon, double offset) {
    const at::Tensor values = x.to(at::kFloat);
    const at::Tensor inverse = values.square().mean(-1, true).add_(epsilon).pow_(-0.5);
    at::Tensor result = values * inverse;
    if (weight) result.mul_(weight->to(at::kFloat) + offset);
    context->saved_data["offset"] = offset;
    context->save_for_backward({x, inverse, weight.value_or(at::Tensor())});
    return result.to(x.scalar_type());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::Tensor& inverse = saved[1];
    const at::Tensor& weight = saved[2];
    const at::Tensor normed = x.detach().to(at::kFloat) * inverse;
    at::Tensor gradient = gradients[0].to(at::kFloat);
    at::Tensor of_x;
    at::Tensor of_weight;
    if (weight.defined()) {
      if (weight.requires_grad()) {
        of_weight = (gradient * normed).reshape({-1, weight.size(0)}).sum(0).to(weight.scalar_type());
      }
      gradient = gradient * (weight.detach().to(at::kFloat) + context->saved_data["offset"].toDouble());
    }
    if (x.requires_grad()) {
      const at::Tensor along = (gradient * normed).mean(-1, true);
      of_x = (gradient - normed * along).mul_(inverse).to(x.scalar_type());
    }
    return {of_x, of_weight, at::Tensor(), at::Tensor()};
  }
};

// Rows whose gradients of factors are added one after the other, so that the sum knows no number of threads.
constexpr int64_t kMostParts = 32;
constexpr int64_t kGrain = int64_t{1} << 14;  // values that repay a thread

// offset + weight, or ones.
at::Tensor factors_of(const at::Tensor& x, const at::Tensor& weight, double offset) {
  const at::TensorOptions options = x.options().dtype(at::kFloat).requires_grad(false);
  if (!weight.defined()) return at::ones({x.size(-1)}, options);
  return weight.detach().to(at::kFloat) + offset;
}

// The same in one pass over memory.
class Bfloat16RmsNorm : public torch::autograd::Function<Bfloat16RmsNorm> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const std::optional<at::Tensor>& weight, double epsilon, double offset) {
    const at::Tensor values = x.detach().contiguous();
    const at::Tensor factors = factors_of(x, weight.value_or(at::Tensor()), offset);
    const int64_t width = x.size(-1);
    const int64_t rows = x.numel() / width;
    at::Tensor inverses = at::empty({rows}, factors.options());
    at::Tensor result = at::empty_like(values);
    auto* inverse = inverses.mutable_data_ptr<float>();
    at::parallel_for(0, rows, std::max<int64_t>(1, kGrain / width), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        inverse[row] =
            bfloat16_kernels::rms_norm(bfloat16_data(values) + row * width, width, factors.const_data_ptr<float>(),
                                       epsilon, mutable_bfloat16_data(result) + row * width);
      }
    });
    context->saved_data["offset"] = offset;
    context->save_for_backward({x, inverses, weight.value_or(at::Tensor())});
    return result;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor values = saved[0].detach().contiguous();
    const at::Tensor& weight = saved[2];
    const at::Tensor gradient = gradients[0].contiguous();
    const at::Tensor factors = factors_of(values, weight, context->saved_data["offset"].toDouble());
    const auto* inverse = saved[1].const_data_ptr<float>();
    const int64_t width = values.size(-1);
    const int64_t rows = values.numel() / width;
    const int64_t parts = std::clamp<int64_t>(values.numel() / kGrain, 1, kMostParts);
    at::Tensor of_x = saved[0].requires_grad() ? at::empty_like(values) : at::Tensor();
    const bool learns = weight.defined() && weight.requires_grad();
    at::Tensor of_factors = at::zeros({learns ? parts : 0, width}, factors.options());
    at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        auto* sums = learns ? of_factors.mutable_data_ptr<float>() + part * width : nullptr;
        for (int64_t row = part * rows / parts; row < (part + 1) * rows / parts; ++row) {
          bfloat16_kernels::rms_norm_backward(
              bfloat16_data(values) + row * width, bfloat16_data(gradient) + row * width, width,
              factors.const_data_ptr<float>(), inverse[row],
              of_x.defined() ? mutable_bfloat16_data(of_x) + row * width : nullptr, sums);
        }
      }
    });
    const at::Tensor of_weight = learns ? of_factors.sum(0).to(weight.scalar_type()) : at::Tensor();
    return {of_x, of_weight, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const std::optional<at::Tensor>& weight, double epsilon, double offset) {
  if (is_bfloat16_on_cpu(x)) return Bfloat16RmsNorm::apply(x, weight, epsilon, offset);
  return RmsNorm::apply(x, weight, epsilon, offset);
}

}  // namespace qat
