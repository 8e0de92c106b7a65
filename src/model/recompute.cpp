#include "model/recompute.h"

#include <ATen/core/ivalue.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

namespace qat {

namespace {

thread_local bool recomputing = false;

// Repeats with recording, which backward passes switch off.
class Repetition {
 public:
  Repetition() : before_(std::exchange(recomputing, true)) {}
  ~Repetition() { recomputing = before_; }
  Repetition(const Repetition&) = delete;
  Repetition& operator=(const Repetition&) = delete;

 private:
  bool before_;
  at::AutoGradMode recording_{true};
};

struct KeptComputation : torch::CustomClassHolder {
  explicit KeptComputation(Computation kept) : compute(std::move(kept)) {}
  Computation compute;
};

class Recomputed : public torch::autograd::Function<Recomputed> {
 public:
  // `anchor` makes the outputs differentiable where only leaves inside want gradients. Called without recording.
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const Computation& compute,
                                                const at::Tensor& /*anchor*/, at::TensorList inputs) {
    context->set_materialize_grads(false);
    context->saved_data["computation"] = at::IValue::make_capsule(c10::make_intrusive<KeptComputation>(compute));
    context->save_for_backward(inputs.vec());
    return compute(inputs.vec());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto kept =
        c10::static_intrusive_pointer_cast<KeptComputation>(context->saved_data["computation"].toCapsule());
    torch::autograd::variable_list inputs;
    for (const at::Tensor& input : context->get_saved_variables()) {
      inputs.push_back(input.detach().requires_grad_(input.requires_grad()));
    }
    torch::autograd::variable_list outputs, of_outputs;
    {
      const Repetition repetition;
      const auto repeated = kept->compute(inputs);
      for (size_t i = 0; i < repeated.size(); ++i) {
        if (!repeated[i].requires_grad() || !gradients[i].defined()) continue;
        outputs.push_back(repeated[i]);
        of_outputs.push_back(gradients[i]);
      }
    }
    if (!outputs.empty()) torch::autograd::backward(outputs, of_outputs);
    torch::autograd::variable_list result(2);  // of the computation and the anchor
    for (const at::Tensor& input : inputs) result.push_back(input.grad());
    return result;
  }
};

}  // namespace

std::vector<at::Tensor> recompute_in_backward(const Computation& compute, const std::vector<at::Tensor>& inputs) {
  const at::Tensor anchor = at::empty({0}, inputs.front().options().requires_grad(false)).requires_grad_(true);
  return Recomputed::apply(compute, anchor, at::TensorList(inputs));
}

bool is_recomputing() { return recomputing; }

}  // namespace qat
