#include "eval/row_comparison.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "eval/logits.h"

namespace qat {
namespace {

struct RowSums {
  double log_sum_exp = 0;
  double mean_difference = 0;  // of own logit - other logit, under the row's own probabilities
};

// One pass, so that the probabilities that weigh the differences are exactly those that the normalisation sums.
RowSums row_sums(std::span<const float> row, std::span<const float> other) {
  const double largest = *std::max_element(row.begin(), row.end());
  double sum = 0;
  double weighted = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    const double probability = std::exp(static_cast<double>(row[i]) - largest);
    sum += probability;
    // A token that is impossible in the row (logit -infinity) contributes nothing, not NaN.
    if (probability > 0) weighted += probability * (static_cast<double>(row[i]) - static_cast<double>(other[i]));
  }
  return {largest + std::log(sum), weighted / sum};
}

// Equal distributions may come out at -1e-16. A NaN must pass.
double not_negative(double divergence) { return divergence < 0 ? 0.0 : divergence; }

}  // namespace

TokenMeasures measure_row(std::span<const float> logits, std::span<const float> reference, int32_t correct) {
  const auto target = static_cast<size_t>(correct);
  TokenMeasures measures;
  if (reference.empty()) {
    measures.negative_log_likelihood = log_sum_exp(logits) - static_cast<double>(logits[target]);
    return measures;
  }
  QAT_CHECK(reference.size() == logits.size());
  const RowSums own = row_sums(logits, reference);
  const RowSums of_reference = row_sums(reference, logits);
  measures.negative_log_likelihood = own.log_sum_exp - static_cast<double>(logits[target]);
  measures.reference_negative_log_likelihood = of_reference.log_sum_exp - static_cast<double>(reference[target]);
  measures.divergence = not_negative(of_reference.mean_difference - of_reference.log_sum_exp + own.log_sum_exp);
  measures.reverse_divergence = not_negative(own.mean_difference - own.log_sum_exp + of_reference.log_sum_exp);
  measures.probability_change =
      std::exp(-measures.negative_log_likelihood) - std::exp(-measures.reference_negative_log_likelihood);
  measures.same_top = greedy_token(logits) == greedy_token(reference);
  return measures;
}

}  // namespace qat
