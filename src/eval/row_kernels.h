// Sums over rows of logits, vectorised and in double. Used by logits and row_comparison.
#pragma once

#include <span>

namespace qat::kernels {

// The largest of a row's logits (at least one); NaN if one is NaN.
float largest_logit(std::span<const float> row);

// The sum of exp(logit - largest), which an infinite `largest` makes meaningless.
double sum_of_exponentials(std::span<const float> row, double largest);

// Of two rows of one length, each with its largest logit: the sums as above, and those in which every exponential is
// multiplied by its own row's logit minus the other's. A token that is impossible in a row (logit -infinity) adds
// nothing to that row's sums.
struct PairSums {
  double first = 0;
  double first_differences = 0;
  double second = 0;
  double second_differences = 0;
};
PairSums pair_sums(std::span<const float> first, double first_largest, std::span<const float> second,
                   double second_largest);

}  // namespace qat::kernels
