#include "model/chunked_head.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "core/error.h"
#include "model/weight_product.h"

namespace qat {

namespace {

struct HeadFacts {
  double softcap;
  std::shared_ptr<ActivationTransform> output_transform;
};

// Logits of one chunk with what their derivative needs.
class ChunkLogits {
 public:
  ChunkLogits(const HeadFacts& facts, const at::Tensor& hidden, const at::Tensor& weight, bool gradient_is_wanted)
      : facts_(facts) {
    at::Tensor raw = multiply_by_weight(hidden, weight);
    if (facts_.output_transform) {
      const at::AutoGradMode recording(gradient_is_wanted);
      raw_ = raw.detach().requires_grad_(gradient_is_wanted);
      transformed_ = facts_.output_transform->apply(raw_);
      raw = transformed_.detach();
    }
    // Each operation rounds to the model's dtype, as in transformers.
    if (facts_.softcap > 0) raw = raw.div(facts_.softcap).tanh_().mul_(facts_.softcap);
    values_ = raw.to(at::kFloat);
  }

  const at::Tensor& values() const { return values_; }

  // Turns a gradient with respect to the values into one with respect to the product of hidden states and weight.
  // Destroys the values.
  at::Tensor gradient_of_product(const at::Tensor& of_values) {
    at::Tensor gradient = of_values;
    if (facts_.softcap > 0) gradient = values_.div_(facts_.softcap).square_().neg_().add_(1).mul_(of_values);
    if (transformed_.defined() && transformed_.requires_grad()) {
      gradient = torch::autograd::grad({transformed_}, {raw_}, {gradient.to(transformed_.scalar_type())}).front();
    }
    return gradient;
  }

 private:
  const HeadFacts& facts_;
  at::Tensor raw_;
  at::Tensor transformed_;
  at::Tensor values_;
};

class HeadLoss : public torch::autograd::Function<HeadLoss> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& hidden,
                            const at::Tensor& weight, const HeadFacts& facts, const LogitsLossFunction& loss,
                            int64_t chunk_tokens, bool hidden_wants, bool weight_wants) {
    const at::TensorOptions options = hidden.options().dtype(at::kFloat).requires_grad(false);
    at::Tensor total = at::zeros({}, options.dtype(at::kDouble));
    at::Tensor of_hidden = hidden_wants ? at::zeros(hidden.sizes(), options) : at::Tensor();
    at::Tensor of_weight = weight_wants ? at::zeros(weight.sizes(), options) : at::Tensor();
    for (int64_t first = 0; first < hidden.size(0); first += chunk_tokens) {
      const int64_t count = std::min(chunk_tokens, hidden.size(0) - first);
      const at::Tensor rows = hidden.narrow(0, first, count);
      ChunkLogits logits(facts, rows, weight, hidden_wants || weight_wants);
      const LogitsLoss chunk = loss(logits.values(), first, hidden_wants || weight_wants);
      total.add_(chunk.sum);
      if (!hidden_wants && !weight_wants) continue;
      QAT_CHECK(chunk.gradient.defined());
      const at::Tensor gradient = logits.gradient_of_product(chunk.gradient);
      if (hidden_wants) of_hidden.narrow(0, first, count).copy_(gradient_of_input(gradient, weight));
      if (weight_wants) add_gradient_of_weight(of_weight, gradient, rows);
    }
    context->saved_data["dtype"] = static_cast<int64_t>(hidden.scalar_type());
    context->save_for_backward({of_hidden, of_weight});
    return total.to(at::kFloat);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto dtype = static_cast<at::ScalarType>(context->saved_data["dtype"].toInt());
    torch::autograd::variable_list result(7);
    const auto saved = context->get_saved_variables();
    for (size_t i = 0; i < saved.size(); ++i) {
      if (saved[i].defined()) result[i] = (saved[i] * gradients[0]).to(dtype);
    }
    return result;
  }
};

}  // namespace

at::Tensor loss_sum_through_head(const Gemma4Model& model, const at::Tensor& hidden, const LogitsLossFunction& loss,
                                 int64_t chunk_tokens) {
  QAT_CHECK(chunk_tokens > 0);
  const Projection& head = model.head();
  const at::Tensor input = head.input_transform ? head.input_transform->apply(hidden) : hidden;
  const at::Tensor weight = head.effective_weight();
  const bool recording = at::GradMode::is_enabled();
  return HeadLoss::apply(input, weight, HeadFacts{model.config().final_logit_softcap, head.output_transform}, loss,
                         chunk_tokens, recording && input.requires_grad(), recording && weight.requires_grad());
}

LogitsLoss cross_entropy_of_logits(const at::Tensor& logits, const at::Tensor& targets, bool gradient_is_wanted) {
  const at::Tensor target = targets.unsqueeze(1);
  at::Tensor log_probabilities = at::log_softmax(logits, -1);
  LogitsLoss result{log_probabilities.gather(1, target).sum().neg_(), {}};
  if (gradient_is_wanted) {
    result.gradient = log_probabilities.exp_();
    result.gradient.scatter_(1, target, result.gradient.gather(1, target).sub_(1));
  }
  return result;
}

at::Tensor cross_entropy_sum(const Gemma4Model& model, const at::Tensor& hidden, const at::Tensor& targets,
                             int64_t chunk_tokens) {
  QAT_CHECK(targets.dim() == 1 && targets.size(0) == hidden.size(0));
  const at::Tensor counted = targets.ge(0).nonzero().squeeze(1);
  const at::Tensor wanted = targets.index_select(0, counted);
  const LogitsLossFunction loss = [&](const at::Tensor& logits, int64_t first, bool gradient_is_wanted) {
    return cross_entropy_of_logits(logits, wanted.narrow(0, first, logits.size(0)), gradient_is_wanted);
  };
  return loss_sum_through_head(model, hidden.index_select(0, counted), loss, chunk_tokens);
}

}  // namespace qat
