// Causal attention over packed documents, with an optional sliding window: gemma4_architecture.md 2.5, 2.7.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace qat {

// Which keys a query sees: those of its document up to itself, and of these the last `window` (0 = all).
struct AttentionReach {
  std::vector<int64_t> document_starts;  // as in PackedTokens
  int64_t window = 0;
  int64_t past = 0;  // keys before those of the queries (decoding; then there is one document): query i is key past + i
};

// query [T, heads, head_dim], key and value [past + T, key_value_heads, head_dim] -> [T, heads, head_dim].
// Query head j reads key-value head j / (heads / key_value_heads). Scores are scaled by `scale`. Differentiable; the
// scores never exist as a whole, and with a window only pieces of queries with the keys they can see are computed.
at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const AttentionReach& reach, double scale);

// The same through at::scaled_dot_product_attention and its autograd: what devices other than the CPU use.
at::Tensor attention_of_any_device(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                   const AttentionReach& reach, double scale);

}  // namespace qat
