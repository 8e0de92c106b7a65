// Perplexity over documents, and the distance of a model's distributions from a reference model's at the same
// positions. Sums are kept per document, so that differences between models can be resampled over documents.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "data/dataset.h"
#include "data/tokenizer.h"
#include "eval/distribution.h"
#include "eval/divergence_places.h"
#include "eval/logit_rows.h"
#include "gemma4/language_model.h"

namespace qat {

struct TextOptions {
  // Longer documents are measured in windows of this many tokens, each beginning with the document's first token (BOS).
  // A window sees nothing outside it. 0: documents are never cut.
  int64_t max_tokens = 0;
  // Each window begins so many tokens after the one before it and counts only tokens that none before it did, which
  // gives them more context. From 1 to max_tokens - 1, the largest, for which 0 stands: windows do not overlap.
  int64_t stride = 0;
  // Windows are read together until they have so many tokens.
  int64_t batch_tokens = kBatchTokens;
  int64_t logits_bytes = kLogitsBytes;   // most of each model's logits at a time
  const Tokenizer* tokenizer = nullptr;  // counts words and bytes and spells the worst tokens, if there is one
  int threads = 0;                       // for comparing rows; 0: as many as the machine has
  std::function<void(int64_t done, int64_t total)> on_progress;  // documents
};

// Sums over the counted tokens of one document, in nats. The fields about a reference stay 0 without one, words and
// bytes without a tokenizer.
struct DocumentMeasures {
  int64_t line = 0;  // of the data file
  int64_t tokens = 0;
  int64_t words = 0;
  int64_t bytes = 0;
  double negative_log_likelihood = 0;
  double reference_negative_log_likelihood = 0;
  double divergence = 0;          // KL(reference || model)
  double reverse_divergence = 0;  // KL(model || reference)
  double same_top = 0;            // positions where both have the same most likely token
  double probability_change = 0;  // of the correct token: model - reference
  double probability_change_squared = 0;
};

struct TextMeasures {
  std::vector<DocumentMeasures> documents;  // as the examples; documents without counted tokens have tokens = 0
  // Per counted token; empty without a reference.
  Distribution divergences;
  Distribution reverse_divergences;
  Distribution probability_changes;
  DivergencePlaces places;
};

// Measures `model` on every token i > 0 with trained[i] set. `reference` may be null. Throws Error for tokens outside
// the vocabulary, vocabularies that differ, logits that are not finite, and examples without any counted token. Held at
// a time are the hidden values of a batch and `logits_bytes` of logits, of each of the two models.
TextMeasures measure_text(LanguageModel& model, LanguageModel* reference, std::span<const Example> documents,
                          const TextOptions& options);

}  // namespace qat
