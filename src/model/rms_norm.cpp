#include "model/rms_norm.h"

#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>

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

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const std::optional<at::Tensor>& weight, double epsilon, double offset) {
  return RmsNorm::apply(x, weight, epsilon, offset);
}

}  // namespace qat
