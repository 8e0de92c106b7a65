#include "model/gated_gelu.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <torch/csrc/autograd/custom_function.h>

namespace qat {

namespace {

class GatedGelu : public torch::autograd::Function<GatedGelu> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& gate, const at::Tensor& up) {
    context->save_for_backward({gate, up});
    return at::gelu(gate, "tanh").mul_(up);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor gate = saved[0].detach();
    const at::Tensor up = saved[1].detach();
    return {at::gelu_backward(gradients[0] * up, gate, "tanh"), at::gelu(gate, "tanh").mul_(gradients[0])};
  }
};

}  // namespace

at::Tensor gelu_tanh(const at::Tensor& x) { return at::gelu(x, "tanh"); }

at::Tensor gated_gelu(const at::Tensor& gate, const at::Tensor& up) { return GatedGelu::apply(gate, up); }

}  // namespace qat
