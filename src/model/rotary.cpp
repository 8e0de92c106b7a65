#include "model/rotary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/custom_function.h>

namespace qat {

namespace {

at::Tensor turned(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine) {
  const int64_t pairs = cosine.size(-1);
  const int64_t half = x.size(-1) / 2;
  const at::Tensor first = x.narrow(-1, 0, pairs);
  const at::Tensor second = x.narrow(-1, half, pairs);
  at::Tensor result = x.clone(at::MemoryFormat::Contiguous);
  result.narrow(-1, 0, pairs).mul_(cosine).sub_(second * sine);
  result.narrow(-1, half, pairs).mul_(cosine).add_(first * sine);
  return result;
}

class Rotation : public torch::autograd::Function<Rotation> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& cosine,
                            const at::Tensor& sine) {
    context->save_for_backward({cosine, sine});
    return turned(x, cosine, sine);
  }

  // The inverse of a rotation is its transpose.
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    return {turned(gradients[0], saved[0], saved[1].neg()), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

RotaryAngles rotary_angles(const RopeConfig& rope, const at::Tensor& positions, at::ScalarType dtype) {
  auto turning = rope.frequencies();
  turning.resize(static_cast<size_t>(rope.rotated_pairs));
  const at::Tensor frequencies = at::tensor(turning, at::kFloat).to(positions.device());
  const at::Tensor angles = positions.view({-1, 1, 1}) * frequencies;
  return {angles.cos().to(dtype), angles.sin().to(dtype)};
}

at::Tensor rotate(const at::Tensor& x, const RotaryAngles& angles) {
  return Rotation::apply(x, angles.cosine, angles.sine);
}

}  // namespace qat
