#include "trainers/lora_branch.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>

#include <utility>

#include "core/error.h"

namespace qat {

LoraBranch::LoraBranch(at::Tensor a, at::Tensor b, float scaling)
    : a_(std::move(a)),
      b_(std::move(b)),
      scaling_(static_cast<double>(scaling)),
      counts_(at::ones({a_.size(0)}, a_.options().requires_grad(false))) {
  QAT_CHECK(a_.scalar_type() == at::kFloat && b_.scalar_type() == at::kFloat && a_.size(0) == b_.size(1));
}

at::Tensor LoraBranch::add_to(const at::Tensor& x, const at::Tensor& product) {
  const at::Tensor components = at::linear(x.to(at::kFloat), a_) * counts_;
  const at::Tensor change = at::linear(components, b_) * scaling_;
  return (product.to(at::kFloat) + change).to(product.scalar_type());
}

}  // namespace qat
