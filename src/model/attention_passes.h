// What the ways to compute attention on a CPU take and give.
#pragma once

#include <ATen/core/Tensor.h>

namespace qat {

struct Attended {
  at::Tensor output;    // [T, heads, head_dim]
  at::Tensor log_sums;  // fp32 [T, heads]: log-sum-exps of a query's scaled scores
};

struct AttentionOperands {
  at::Tensor query, key, value;
  Attended result;
  at::Tensor gradient;  // of the output
};

struct AttentionGradients {
  at::Tensor query, key, value;
};

}  // namespace qat
