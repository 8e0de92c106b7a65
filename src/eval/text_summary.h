// What is reported of measured documents: means, percentiles, perplexities.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "eval/distribution.h"
#include "eval/text_metrics.h"

namespace qat {

// Per token, what llama-perplexity --kl-divergence prints and the divergence in the other direction.
struct DivergenceSummary {
  DistributionSummary divergence;          // KL(reference || model)
  DistributionSummary reverse_divergence;  // KL(model || reference)
  DistributionSummary probability_change;  // of the correct token: model - reference
  double rms_probability_change = 0;
  double same_top_share = 0;
  double reference_perplexity = 0;
};

// Perplexities that do not depend on how the text was cut into tokens.
struct UnitSummary {
  int64_t words = 0;
  int64_t bytes = 0;
  double word_perplexity = 0;  // exp(sum of the loss / words)
  double byte_perplexity = 0;
  double bits_per_byte = 0;
};

struct TextSummary {
  int64_t documents = 0;  // with counted tokens
  int64_t tokens = 0;
  double mean_negative_log_likelihood = 0;
  double perplexity = 0;
  std::optional<UnitSummary> units;  // if a tokenizer counted them
  std::optional<DivergenceSummary> divergence;
};

TextSummary summarize(const TextMeasures& measures);

// The documents of several files as one.
TextMeasures joined(std::span<const TextMeasures> files);

// One number per document, for eval/statistics.h: column(measures, &DocumentMeasures::divergence).
std::vector<double> column(const TextMeasures& measures, double DocumentMeasures::*field);
// Counted tokens per document: the weights of those columns.
std::vector<double> token_column(const TextMeasures& measures);

}  // namespace qat
