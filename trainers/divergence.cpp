#include "trainers/divergence.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/logaddexp.h>

#include <cmath>

namespace qat {

namespace {

// The sum of KL(p || reference) over the rows, times `factor`, and its gradient as if the reference did not depend on
// the logits z behind p. With r = log p - log reference, dKL/dz_k = p_k (r_k - sum_j p_j r_j).
LogitsLoss kl_to_constant(const at::Tensor& log_p, const at::Tensor& log_reference, double factor,
                          bool gradient_is_wanted) {
  at::Tensor p = log_p.exp();
  at::Tensor ratio = log_p - log_reference;
  const at::Tensor kl = (p * ratio).sum(-1, /*keepdim=*/true);
  LogitsLoss result{kl.sum().mul_(factor), {}};
  if (gradient_is_wanted) result.gradient = p.mul_(ratio.sub_(kl)).mul_(factor);
  return result;
}

}  // namespace

LogitsLoss forward_kl(const at::Tensor& teacher, const at::Tensor& model, bool gradient_is_wanted) {
  const at::Tensor q = teacher.exp();
  LogitsLoss result{(q * (teacher - model)).sum(), {}};
  if (gradient_is_wanted) result.gradient = model.exp().sub_(q);
  return result;
}

LogitsLoss reverse_kl(const at::Tensor& teacher, const at::Tensor& model, bool gradient_is_wanted) {
  return kl_to_constant(model, teacher, 1, gradient_is_wanted);
}

LogitsLoss jensen_shannon(const at::Tensor& teacher, const at::Tensor& model, double beta, bool gradient_is_wanted) {
  const at::Tensor mixture = at::logaddexp(teacher + std::log(beta), model + std::log1p(-beta));
  // The mixture depends on the model, too, but what both terms contribute through it, -sum_k m_k dlog(m_k), is zero.
  LogitsLoss result = kl_to_constant(model, mixture, 1 - beta, gradient_is_wanted);
  result.sum.add_((teacher.exp() * (teacher - mixture)).sum(), beta);
  return result;
}

}  // namespace qat
