// The head applied in chunks of tokens, so that the logits of a long input never exist as a whole; gradients of hidden
// states and head weight are computed chunk by chunk in the forward pass. A chunk's product with the head is one matrix
// product and stays in the model's dtype; what follows in fp32 is done for a few rows of it at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>

#include "model/gemma4_model.h"

namespace qat {

// fp32 logits of a head's product, after the soft-cap (0: none). Each operation rounds to the product's dtype, as in
// transformers. Without autograd.
at::Tensor logits_of_product(const at::Tensor& product, double softcap);

// Tokens of a chunk: their product with the head takes 24 MiB at most, unless those are fewer than 16 tokens.
int64_t head_chunk_tokens(int64_t vocabulary_size, int64_t value_bytes);
// Rows of a chunk whose logits are in fp32 at a time: 2 MiB of them.
int64_t head_loss_rows(int64_t vocabulary_size);

// Logits of rows of hidden states, read in order and a few rows at a time. Without autograd.
class ChunkedLogits {
 public:
  // `hidden` [n, hidden]; `head` must outlive this.
  ChunkedLogits(const Projection& head, double softcap, at::Tensor hidden);
  // fp32 [count, vocabulary]; `first` lies in the chunk of the call before or in a later one.
  at::Tensor rows(int64_t first, int64_t count);
  // Calls visit(logits, first) for all rows.
  void for_each(const std::function<void(const at::Tensor& logits, int64_t first)>& visit);

 private:
  const Projection& head_;
  double softcap_;
  at::Tensor hidden_;
  int64_t vocabulary_size_;
  int64_t chunk_tokens_;
  int64_t chunk_ = -1;
  at::Tensor product_;
};

// Sum of -log p(target) over tokens with target >= 0 (fp32 scalar, differentiable with respect to hidden states and the
// head's master). `hidden` [T, hidden], `targets` int64 [T], negative = not counted; rows without target cost nothing.
at::Tensor cross_entropy_sum(const Gemma4Model& model, const at::Tensor& hidden, const at::Tensor& targets,
                             std::optional<int64_t> chunk_tokens = std::nullopt);

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
                                 std::optional<int64_t> chunk_tokens = std::nullopt);

}  // namespace qat
