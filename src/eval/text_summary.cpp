#include "eval/text_summary.h"

#include <cmath>

#include "core/error.h"

namespace qat {
namespace {

DocumentMeasures total_of(const TextMeasures& measures) {
  DocumentMeasures total;
  for (const DocumentMeasures& document : measures.documents) {
    total.tokens += document.tokens;
    total.words += document.words;
    total.bytes += document.bytes;
    total.negative_log_likelihood += document.negative_log_likelihood;
    total.reference_negative_log_likelihood += document.reference_negative_log_likelihood;
    total.divergence += document.divergence;
    total.reverse_divergence += document.reverse_divergence;
    total.same_top += document.same_top;
    total.probability_change += document.probability_change;
    total.probability_change_squared += document.probability_change_squared;
  }
  return total;
}

DivergenceSummary summarize_divergence(const TextMeasures& measures, const DocumentMeasures& total) {
  const auto tokens = static_cast<double>(total.tokens);
  return {.divergence = summarize(measures.divergences, total.divergence / tokens),
          .reverse_divergence = summarize(measures.reverse_divergences, total.reverse_divergence / tokens),
          .probability_change = summarize(measures.probability_changes, total.probability_change / tokens),
          .rms_probability_change = std::sqrt(total.probability_change_squared / tokens),
          .same_top_share = total.same_top / tokens,
          .reference_perplexity = std::exp(total.reference_negative_log_likelihood / tokens)};
}

UnitSummary summarize_units(const DocumentMeasures& total) {
  const double per_byte = total.negative_log_likelihood / static_cast<double>(total.bytes);
  return {.words = total.words,
          .bytes = total.bytes,
          .word_perplexity = std::exp(total.negative_log_likelihood / static_cast<double>(total.words)),
          .byte_perplexity = std::exp(per_byte),
          .bits_per_byte = per_byte / std::log(2.0)};
}

}  // namespace

TextSummary summarize(const TextMeasures& measures) {
  const DocumentMeasures total = total_of(measures);
  QAT_CHECK(total.tokens > 0);
  TextSummary summary;
  for (const DocumentMeasures& document : measures.documents) summary.documents += document.tokens > 0 ? 1 : 0;
  summary.tokens = total.tokens;
  summary.mean_negative_log_likelihood = total.negative_log_likelihood / static_cast<double>(total.tokens);
  summary.perplexity = std::exp(summary.mean_negative_log_likelihood);
  if (total.words > 0) summary.units = summarize_units(total);
  if (measures.divergences.count() > 0) summary.divergence = summarize_divergence(measures, total);
  return summary;
}

TextMeasures joined(std::span<const TextMeasures> files) {
  TextMeasures all;
  for (const TextMeasures& file : files) {
    all.places.merge(file.places, all.documents.size());
    all.documents.insert(all.documents.end(), file.documents.begin(), file.documents.end());
    all.divergences.merge(file.divergences);
    all.reverse_divergences.merge(file.reverse_divergences);
    all.probability_changes.merge(file.probability_changes);
  }
  return all;
}

std::vector<double> column(const TextMeasures& measures, double DocumentMeasures::*field) {
  std::vector<double> values;
  values.reserve(measures.documents.size());
  for (const DocumentMeasures& document : measures.documents) values.push_back(document.*field);
  return values;
}

std::vector<double> token_column(const TextMeasures& measures) {
  std::vector<double> values;
  values.reserve(measures.documents.size());
  for (const DocumentMeasures& document : measures.documents) values.push_back(static_cast<double>(document.tokens));
  return values;
}

}  // namespace qat
