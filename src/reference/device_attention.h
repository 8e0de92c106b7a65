// Flash attention as llama.cpp's CPU backend computes it (ggml_compute_forward_flash_attn_ext_f16).
#pragma once

#include "reference/arithmetic.h"

namespace qat::device {

// Queries of one key-value head's group for the rows [first_row, end_row); writes those parts of `result`.
//
// `tiled`: the fp32 path of 64 and more queries over F32 and F16 caches; otherwise one key after another, queries
// rounded to what the keys' dot product takes, and sums over an F16 cache's values kept in fp16. One sequence that
// fills the cache's cells in order. llama.cpp splits the keys of a single query over its threads from 512 cells on:
// this is the order of one thread.
void attend_group(const Matrix& queries, const KeyValueCache& cache, const AttentionShape& shape,
                  int64_t key_value_head, int64_t first_row, int64_t end_row, bool tiled, Matrix& result);

// exp as ggml_v_expf computes it for vectors of eight (2 ulp; underflows to 0 below -87.3), and the sum of
// ggml_vec_soft_max_f32: values become exp(value - largest).
double soft_max_exponentials(std::span<float> values, float largest);

}  // namespace qat::device
