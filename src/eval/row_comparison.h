// One row of logits against the correct token and against a reference's row. Used by text_metrics.
#pragma once

#include <cstdint>
#include <span>

namespace qat {

// Measures of one position, in nats. The likelihoods are not finite if a row is not.
struct TokenMeasures {
  double negative_log_likelihood = 0;
  double reference_negative_log_likelihood = 0;
  double divergence = 0;          // KL(reference || model)
  double reverse_divergence = 0;  // KL(model || reference); infinite where only the model gives a token a chance
  double probability_change = 0;  // of the correct token: model - reference
  bool same_top = false;
};

// An empty `reference` leaves its fields 0.
TokenMeasures measure_row(std::span<const float> logits, std::span<const float> reference, int32_t correct);

}  // namespace qat
