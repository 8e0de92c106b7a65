// The head applied in chunks of tokens, so that the logits of a long input never exist as a whole; gradients of hidden
// states and head weight are computed chunk by chunk in the forward pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "model/gemma4_model.h"

namespace qat {

inline constexpr int64_t kHeadChunkTokens = 128;

// Sum of -log p(target) over tokens with target >= 0 (fp32 scalar, differentiable with respect to hidden states and the
// head's master). `hidden` [T, hidden], `targets` int64 [T], negative = not counted; rows without target cost nothing.
at::Tensor cross_entropy_sum(const Gemma4Model& model, const at::Tensor& hidden, const at::Tensor& targets,
                             int64_t chunk_tokens = kHeadChunkTokens);

// A loss of some rows of logits: its sum over the rows (fp32 scalar) and its gradient with respect to the logits (fp32,
// their shape; may be left undefined if not wanted).
struct LogitsLoss {
  at::Tensor sum;
  at::Tensor gradient;
};

// Computes a loss of consecutive rows: `logits` fp32 [n, vocabulary] after the soft-cap belong to the rows of the
// hidden states from `first_row` on. Called without autograd.
using LogitsLossFunction =
    std::function<LogitsLoss(const at::Tensor& logits, int64_t first_row, bool gradient_is_wanted)>;

// Sum of -log p(target) over the rows; `targets` int64 [n], each in the vocabulary.
LogitsLoss cross_entropy_of_logits(const at::Tensor& logits, const at::Tensor& targets, bool gradient_is_wanted);

// Any loss that is a sum over rows, through the head in chunks (fp32 scalar, differentiable as above). Every row of
// `hidden` [n, hidden] counts: callers drop the others first. An output transform of the head takes part with its
// derivative, but its own parameters get no gradient.
at::Tensor loss_sum_through_head(const Gemma4Model& model, const at::Tensor& hidden, const LogitsLossFunction& loss,
                                 int64_t chunk_tokens = kHeadChunkTokens);

}  // namespace qat
