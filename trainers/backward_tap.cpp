#include "trainers/backward_tap.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <utility>

#include "core/error.h"

namespace qat {

namespace {

class Hook final : public torch::autograd::PostAccumulateGradHook {
 public:
  explicit Hook(std::function<void()> arrived) : arrived_(std::move(arrived)) {}
  void operator()(const torch::autograd::Variable& /*parameter*/) override { arrived_(); }

 private:
  std::function<void()> arrived_;
};

}  // namespace

BackwardTap::BackwardTap(const std::vector<TrainedWeight>& weights) {
  for (const TrainedWeight& weight : weights) {
    const size_t index = parameters_.size();
    parameters_.push_back(weight.parameter);
    torch::autograd::impl::set_post_acc_grad_hooks(weight.parameter,
                                                   std::make_unique<Hook>([this, index] { arrived(index); }));
  }
}

BackwardTap::~BackwardTap() {
  for (const at::Tensor& parameter : parameters_) torch::autograd::impl::set_post_acc_grad_hooks(parameter, nullptr);
}

void BackwardTap::backward(const at::Tensor& loss, const Visitor& visit) {
  visited_.assign(parameters_.size(), false);
  visit_ = &visit;
  loss.backward();
  for (size_t index = 0; index < parameters_.size(); ++index) {
    if (!visited_[index]) visit(index, at::zeros_like(parameters_[index]));
  }
  visit_ = nullptr;
}

void BackwardTap::arrived(size_t index) {
  if (visit_ == nullptr) return;
  QAT_CHECK(!visited_[index]);
  visited_[index] = true;
  const at::NoGradGuard no_grad;
  at::Tensor& gradient = parameters_[index].mutable_grad();
  (*visit_)(index, gradient.contiguous());
  gradient.reset();
}

}  // namespace qat
