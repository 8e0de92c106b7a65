// Divergences between two distributions over the vocabulary, with their derivatives in closed form: a chunk of logits
// needs no autograd graph.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/chunked_head.h"

namespace qat {

// Each takes log-probabilities fp32 [n, vocabulary] of the teacher and of the model, and returns the divergence summed
// over the rows with its gradient with respect to the logits behind `model` (undefined unless wanted).

// KL(teacher || model).
LogitsLoss forward_kl(const at::Tensor& teacher, const at::Tensor& model, bool gradient_is_wanted);
// KL(model || teacher).
LogitsLoss reverse_kl(const at::Tensor& teacher, const at::Tensor& model, bool gradient_is_wanted);
// Generalised Jensen-Shannon divergence, 0 < beta < 1: beta KL(teacher || m) + (1 - beta) KL(model || m) with the
// mixture m = beta teacher + (1 - beta) model (arXiv 2306.13649, equation 1).
LogitsLoss jensen_shannon(const at::Tensor& teacher, const at::Tensor& model, double beta, bool gradient_is_wanted);

}  // namespace qat
