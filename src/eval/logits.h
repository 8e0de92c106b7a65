// What one row of logits says: its normalisation, its greedy token, its most likely tokens. All sums are in double.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace qat {

// log(sum(exp(logit))) of a row. Not finite if a logit is NaN or +infinity; callers report that as the model's failure.
double log_sum_exp(std::span<const float> logits);

// The token of the largest logit; on ties the smallest id, as numpy.argmax and llama.cpp choose. 0 if a logit is NaN.
int32_t greedy_token(std::span<const float> logits);

// The `count` most likely tokens (id, log-probability), most likely first, ties by id. Fewer if the vocabulary is
// smaller.
std::vector<std::pair<int32_t, float>> top_log_probabilities(std::span<const float> logits, int64_t count);

}  // namespace qat
