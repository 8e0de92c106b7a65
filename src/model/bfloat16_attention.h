// Attention of BF16 tensors through the BF16 products of the CPU: a flash attention whose tiles of scores are
// transposed (a row for each key), with fp32 scores, softmax and sums; only what enters a product is rounded to BF16.
// The same bits with any number of threads.
#pragma once

#include "model/attention.h"
#include "model/attention_passes.h"

namespace qat {

// Whether the CPU multiplies BF16 and the operands are BF16 tensors of whole sequences (without `past`).
bool has_bfloat16_attention(const at::Tensor& query, const AttentionReach& reach);

// The passes of attention() for such operands, which are contiguous.
Attended attend_in_bfloat16(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const AttentionReach& reach, double scale);
AttentionGradients differentiate_in_bfloat16(const AttentionOperands& operands, const AttentionReach& reach,
                                             double scale);

}  // namespace qat
