// The two passes of attention in BF16. Operands are contiguous.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/attention_tiles.h"

namespace qat::attention_tiles {

struct Attended {
  at::Tensor output;    // [T, heads, head_dim]
  at::Tensor log_sums;  // fp32 [T, heads]: log-sum-exps of a query's scaled scores
};

Attended attend(const Shape& shape, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                const AttentionReach& reach);

struct Operands {
  at::Tensor query, key, value;
  Attended result;
  at::Tensor gradient;  // of the output
};

struct Gradients {
  at::Tensor query, key, value;
};

Gradients differentiate(const Shape& shape, const Operands& operands, const AttentionReach& reach);

}  // namespace qat::attention_tiles
