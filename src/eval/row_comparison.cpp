#include "eval/row_comparison.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "eval/logits.h"
#include "eval/row_kernels.h"

namespace qat {
namespace {

// Equal distributions may come out at -1e-16. A NaN must pass.
double not_negative(double divergence) { return divergence < 0 ? 0.0 : divergence; }

size_t first_of(std::span<const float> row, double largest) {
  return static_cast<size_t>(std::ranges::find(row, static_cast<float>(largest)) - row.begin());
}

}  // namespace

TokenMeasures measure_row(std::span<const float> logits, std::span<const float> reference, int32_t correct) {
  const auto target = static_cast<size_t>(correct);
  TokenMeasures measures;
  if (reference.empty()) {
    measures.negative_log_likelihood = log_sum_exp(logits) - static_cast<double>(logits[target]);
    return measures;
  }
  QAT_CHECK(reference.size() == logits.size());
  const double largest = kernels::largest_logit(logits);
  const double reference_largest = kernels::largest_logit(reference);
  const kernels::PairSums sums = kernels::pair_sums(logits, largest, reference, reference_largest);
  const double own = largest + std::log(sums.first);
  const double of_reference = reference_largest + std::log(sums.second);
  measures.negative_log_likelihood = own - static_cast<double>(logits[target]);
  measures.reference_negative_log_likelihood = of_reference - static_cast<double>(reference[target]);
  measures.divergence = not_negative(sums.second_differences / sums.second - of_reference + own);
  measures.reverse_divergence = not_negative(sums.first_differences / sums.first - own + of_reference);
  measures.probability_change =
      std::exp(-measures.negative_log_likelihood) - std::exp(-measures.reference_negative_log_likelihood);
  measures.same_top = first_of(logits, largest) == first_of(reference, reference_largest);
  return measures;
}

}  // namespace qat
