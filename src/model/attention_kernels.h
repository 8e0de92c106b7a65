// The vector loops between the matrix products of attention in BF16, for every instruction set. A tile of scores has a
// row for each key and a column for each query, so that every query is a lane of its own. `columns` is a multiple of
// kColumnsOfVectors; a pair is two BF16 numbers, the first in the low half, as products of BF16 want their right side.
#pragma once

#include <cstdint>

#include "core/float_types.h"

namespace qat::attention_kernels {

inline constexpr int64_t kColumnsOfVectors = 32;

// What a query has seen so far: its largest scaled score, the sum of exp(score - largest), and by how much this sum
// (and what was mixed with it) shrank when the last tile came.
struct RunningSoftmax {
  float* largest;
  float* sum;
  float* decay;
};

// Adds a tile of unscaled scores [keys, columns]: exp(scale x score - largest) as pairs of keys [keys / 2, columns].
// A score of -inf is not seen. Returns whether any decay differs from 1.
bool add_scores(const float* scores, int64_t keys, int64_t columns, float scale, const RunningSoftmax& softmax,
                uint32_t* pairs);

// From scores and the gradients of probabilities [keys, columns], log-sum-exps and the sums over (output x its
// gradient) of each query: probabilities and gradients of unscaled scores, [keys, columns] with rows `stride` apart,
// the latter as pairs of keys, too.
struct ScoreGradients {
  BFloat16* probabilities;
  BFloat16* of_scores;
  int64_t stride;
  uint32_t* pairs;
};
void differentiate_scores(const float* scores, const float* of_probabilities, int64_t keys, int64_t columns,
                          float scale, const float* log_sums, const float* dots, const ScoreGradients& results);

// values[row][column] *= factors[column]
void scale_columns(float* values, int64_t rows, int64_t columns, const float* factors);

// bf16(values[row][column] x factors[column]) as pairs of rows, [rows / 2, columns].
void narrow_to_pairs(const float* values, int64_t rows, int64_t columns, const float* factors, uint32_t* pairs);

// Pairs of neighbouring rows of [rows, columns], [rows / 2, columns].
void pair_rows(const BFloat16* values, int64_t rows, int64_t columns, uint32_t* pairs);

float dot(const BFloat16* a, const BFloat16* b, int64_t count);

}  // namespace qat::attention_kernels
