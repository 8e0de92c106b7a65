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
  KeptComputation(Computation kept, Provision provision) : compute(std::move(kept)), provide(std::move(provision)) {}
  std::shared_ptr<void> provided(bool again) const { return provide ? provide(again) : nullptr; }

  Computation compute;
  Provision provide;
};

class Recomputed : public torch::autograd::Function<Recomputed> {
 public:
  // `anchor` makes the outputs differentiable where only leaves inside want gradients. Called without recording.
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const Computation& compute,
                                                const Provision& provide, const at::Tensor& /*anchor*/,
                                                at::TensorList inputs) {
    const auto kept = c10::make_intrusive<KeptComputation>(compute, provide);
    context->set_materialize_grads(false);
    context->saved_data["computation"] = at::IValue::make_capsule(kept);
    context->save_for_backward(inputs.vec());
    const auto provided = kept->provided(/*again=*/false);
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
    const auto provided = kept->provided(/*again=*/true);
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
    torch::autograd::variable_list result(3);  // of the computation, its provision and the anchor
    for (const at::Tensor& input : inputs) result.push_back(input.grad());
    return result;
  }
};

}  // namespace

std::vector<at::Tensor> recompute_in_backward(const Computation& compute, const std::vector<at::Tensor>& inputs,
                                              const Provision& provide) {
  const at::Tensor anchor = at::empty({0}, inputs.front().options().requires_grad(false)).requires_grad_(true);
  return Recomputed::apply(compute, provide, anchor, at::TensorList(inputs));
}

bool is_recomputing() { return recomputing; }

}  // namespace qat
