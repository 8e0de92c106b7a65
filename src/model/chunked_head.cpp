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

constexpr int64_t kProductBytes = int64_t{24} << 20;
constexpr int64_t kLossBytes = int64_t{2} << 20;
constexpr int64_t kFewestTokens = 16;
constexpr int64_t kMostTokens = 512;

struct HeadFacts {
  double softcap;
  int64_t loss_rows;
  std::shared_ptr<ActivationTransform> output_transform;
};

// Logits of some rows with what their derivative needs.
class RowLogits {
 public:
  // `product`: of the rows' hidden states and the weight.
  RowLogits(const HeadFacts& facts, const at::Tensor& product, bool gradient_is_wanted) : facts_(facts) {
    at::Tensor raw = product;
    if (facts_.output_transform) {
      const at::AutoGradMode recording(gradient_is_wanted);
      raw_ = raw.detach().requires_grad_(gradient_is_wanted);
      transformed_ = facts_.output_transform->apply(raw_);
      raw = transformed_.detach();
    }
    values_ = logits_of_product(raw, facts_.softcap);
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
    const bool wanted = hidden_wants || weight_wants;
    for (int64_t first = 0; first < hidden.size(0); first += chunk_tokens) {
      const int64_t count = std::min(chunk_tokens, hidden.size(0) - first);
      const at::Tensor rows = hidden.narrow(0, first, count);
      at::Tensor product = multiply_by_weight(rows, weight);
      for (int64_t row = 0; row < count; row += facts.loss_rows) {
        at::Tensor part = product.narrow(0, row, std::min(facts.loss_rows, count - row));
        RowLogits logits(facts, part, wanted);
        const LogitsLoss of_rows = loss(logits.values(), first + row, wanted);
        total.add_(of_rows.sum);
        if (!wanted) continue;
        QAT_CHECK(of_rows.gradient.defined());
        part.copy_(logits.gradient_of_product(of_rows.gradient));
      }
      if (hidden_wants) of_hidden.narrow(0, first, count).copy_(gradient_of_input(product, weight));
      if (weight_wants) add_gradient_of_weight(of_weight, product, rows);
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

at::Tensor logits_of_product(const at::Tensor& product, double softcap) {
  if (softcap <= 0) return product.to(at::kFloat);
  return product.div(softcap).tanh_().mul_(softcap).to(at::kFloat);
}

int64_t head_chunk_tokens(int64_t vocabulary_size, int64_t value_bytes) {
  return std::clamp(kProductBytes / (vocabulary_size * value_bytes), kFewestTokens, kMostTokens);
}

int64_t head_loss_rows(int64_t vocabulary_size) {
  return std::max<int64_t>(1, kLossBytes / (vocabulary_size * static_cast<int64_t>(sizeof(float))));
}

ChunkedLogits::ChunkedLogits(const Projection& head, double softcap, at::Tensor hidden)
    : head_(head),
      softcap_(softcap),
      hidden_(std::move(hidden)),
      vocabulary_size_(head.weight.size(0)),
      chunk_tokens_(head_chunk_tokens(vocabulary_size_, static_cast<int64_t>(hidden_.element_size()))) {}

at::Tensor ChunkedLogits::rows(int64_t first, int64_t count) {
  const at::NoGradGuard no_grad;
  const int64_t wanted = first / chunk_tokens_;
  if (wanted != chunk_) {
    const int64_t begin = wanted * chunk_tokens_;
    product_ = head_(hidden_.narrow(0, begin, std::min(chunk_tokens_, hidden_.size(0) - begin)));
    chunk_ = wanted;
  }
  QAT_CHECK(first + count <= chunk_ * chunk_tokens_ + product_.size(0));
  return logits_of_product(product_.narrow(0, first - chunk_ * chunk_tokens_, count), softcap_);
}

void ChunkedLogits::for_each(const std::function<void(const at::Tensor& logits, int64_t first)>& visit) {
  const int64_t most = head_loss_rows(vocabulary_size_);
  for (int64_t first = 0; first < hidden_.size(0);) {
    const int64_t end = std::min((first / chunk_tokens_ + 1) * chunk_tokens_, hidden_.size(0));
    const int64_t count = std::min(most, end - first);
    visit(rows(first, count), first);
    first += count;
  }
}

at::Tensor loss_sum_through_head(const Gemma4Model& model, const at::Tensor& hidden, const LogitsLossFunction& loss,
                                 std::optional<int64_t> chunk_tokens) {
  const Projection& head = model.head();
  const int64_t vocabulary_size = model.config().vocabulary_size;
  const int64_t chunk =
      chunk_tokens.value_or(head_chunk_tokens(vocabulary_size, static_cast<int64_t>(hidden.element_size())));
  QAT_CHECK(chunk > 0);
  const at::Tensor input = head.input_transform ? head.input_transform->apply(hidden) : hidden;
  const at::Tensor weight = head.effective_weight();
  const bool recording = at::GradMode::is_enabled();
  const HeadFacts facts{model.config().final_logit_softcap, head_loss_rows(vocabulary_size), head.output_transform};
  return HeadLoss::apply(input, weight, facts, loss, chunk, recording && input.requires_grad(),
                         recording && weight.requires_grad());
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
                             std::optional<int64_t> chunk_tokens) {
  QAT_CHECK(targets.dim() == 1 && targets.size(0) == hidden.size(0));
  const at::Tensor counted = targets.ge(0).nonzero().squeeze(1);
  const at::Tensor wanted = targets.index_select(0, counted);
  const LogitsLossFunction loss = [&](const at::Tensor& logits, int64_t first, bool gradient_is_wanted) {
    return cross_entropy_of_logits(logits, wanted.narrow(0, first, logits.size(0)), gradient_is_wanted);
  };
  return loss_sum_through_head(model, hidden.index_select(0, counted), loss, chunk_tokens);
}

}  // namespace qat
