#include "eval/row_comparison.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "eval/logits.h"

namespace qat {
namespace {

struct ReferenceSums {
  double log_sum_exp = 0;
  double mean_difference = 0;  // of reference logit - model logit, under the reference's probabilities
};

// One pass, so that the probabilities that weigh the differences are exactly those that the normalisation sums.
ReferenceSums reference_sums(std::span<const float> reference, std::span<const float> logits) {
  const double largest = *std::max_element(reference.begin(), reference.end());
  double sum = 0;
  double weighted = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double probability = std::exp(static_cast<double>(reference[i]) - largest);
    sum += probability;
    // A token that is impossible in the reference (logit -infinity) contributes nothing, not NaN.
    if (probability > 0) weighted += probability * (static_cast<double>(reference[i]) - static_cast<double>(logits[i]));
  }
  return {largest + std::log(sum), weighted / sum};
}

}  // namespace

TokenMeasures measure_row(std::span<const float> logits, std::span<const float> reference, int32_t correct) {
  const auto target = static_cast<size_t>(correct);
  TokenMeasures measures;
  const double normalisation = log_sum_exp(logits);
  measures.negative_log_likelihood = normalisation - static_cast<double>(logits[target]);
  if (reference.empty()) return measures;

  QAT_CHECK(reference.size() == logits.size());
  const ReferenceSums sums = reference_sums(reference, logits);
  measures.reference_negative_log_likelihood = sums.log_sum_exp - static_cast<double>(reference[target]);
  const double divergence = sums.mean_difference - sums.log_sum_exp + normalisation;
  // Equal distributions may come out at -1e-16. A NaN must pass.
  measures.divergence = divergence < 0 ? 0.0 : divergence;
  measures.probability_change =
      std::exp(-measures.negative_log_likelihood) - std::exp(-measures.reference_negative_log_likelihood);
  measures.same_top = greedy_token(logits) == greedy_token(reference);
  return measures;
}

}  // namespace qat
