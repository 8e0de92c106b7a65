#include "fake_quant/straight_through.h"

#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"

namespace qat {

namespace {

struct StraightThrough : torch::autograd::Function<StraightThrough> {
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor&, const at::Tensor& value) {
    // A view, so that the node never owns the cached tensor itself.
    return value.alias();
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*, torch::autograd::variable_list gradients) {
    return {gradients[0], at::Tensor()};
  }
};

}  // namespace

at::Tensor straight_through(const at::Tensor& input, const at::Tensor& value) {
  QAT_CHECK(input.sizes() == value.sizes() && input.dtype() == value.dtype());
  return StraightThrough::apply(input, value.detach());
}

}  // namespace qat
