#include "model/gated_gelu.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <torch/csrc/autograd/custom_function.h>

#include "model/bfloat16_kernels.h"
#include "model/bfloat16_tensors.h"

namespace qat {

namespace {

constexpr int64_t kGrain = int64_t{1} << 15;  // values that repay a thread

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

// The same in one pass over memory.
class Bfloat16GatedGelu : public torch::autograd::Function<Bfloat16GatedGelu> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& gate, const at::Tensor& up) {
    const at::Tensor gates = gate.detach().contiguous();
    const at::Tensor ups = up.detach().contiguous();
    at::Tensor result = at::empty_like(gates);
    at::parallel_for(0, gates.numel(), kGrain, [&](int64_t begin, int64_t end) {
      bfloat16_kernels::gated_gelu(bfloat16_data(gates) + begin, bfloat16_data(ups) + begin, end - begin,
                                   mutable_bfloat16_data(result) + begin);
    });
    context->save_for_backward({gate, up});
    return result;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor gate = saved[0].detach().contiguous();
    const at::Tensor up = saved[1].detach().contiguous();
    const at::Tensor gradient = gradients[0].contiguous();
    at::Tensor of_gate = at::empty_like(gate);
    at::Tensor of_up = at::empty_like(gate);
    at::parallel_for(0, gate.numel(), kGrain, [&](int64_t begin, int64_t end) {
      bfloat16_kernels::gated_gelu_backward(
          bfloat16_data(gate) + begin, bfloat16_data(up) + begin, bfloat16_data(gradient) + begin, end - begin,
          mutable_bfloat16_data(of_gate) + begin, mutable_bfloat16_data(of_up) + begin);
    });
    return {of_gate, of_up};
  }
};

}  // namespace

at::Tensor gelu_tanh(const at::Tensor& x) { return at::gelu(x, "tanh"); }

at::Tensor gated_gelu(const at::Tensor& gate, const at::Tensor& up) {
  if (is_bfloat16_on_cpu(gate) && gate.numel() >= bfloat16_kernels::kFewestValues) {
    return Bfloat16GatedGelu::apply(gate, up);
  }
  return GatedGelu::apply(gate, up);
}

}  // namespace qat
