#include "eval/text_metrics.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "eval/logit_rows.h"
#include "eval/logits.h"
#include "eval/row_comparison.h"
#include "eval/text_units.h"

namespace qat {
namespace {

// A document, or the part of it that is measured in one context. Wanted are the positions whose logits are measured:
// each predicts the token after it.
struct Window {
  size_t document;
  BatchSequence sequence;
  std::vector<int32_t> correct;  // by wanted position: the token after it
  int64_t begin = 0;             // in the document, of the window's second token
};

void cut_into_windows(const Example& document, size_t index, const TextOptions& options, std::vector<Window>& windows) {
  const auto size = static_cast<int64_t>(document.tokens.size());
  // Of a window after its first token.
  const int64_t length = std::max<int64_t>(options.max_tokens > 0 ? options.max_tokens : size, 2) - 1;
  const int64_t stride = options.stride > 0 ? options.stride : length;
  for (int64_t begin = 1, counted = 1; counted < size; begin += stride) {
    const int64_t end = std::min(begin + length, size);
    Window window{index, {}, {}, begin};
    auto& [tokens, wanted, continues] = window.sequence;
    tokens.push_back(document.tokens.front());
    for (int64_t i = begin; i < end; ++i) {
      const int32_t token = document.tokens[static_cast<size_t>(i)];
      if (i >= counted && document.trained[static_cast<size_t>(i)] != 0) {
        wanted.push_back(static_cast<int64_t>(tokens.size()) - 1);
        window.correct.push_back(token);
      }
      tokens.push_back(token);
    }
    counted = end;
    if (wanted.empty()) continue;
    // Nothing after the last of them is computed.
    tokens.resize(static_cast<size_t>(wanted.back()) + 1);
    windows.push_back(std::move(window));
  }
}

// The first windows that make a batch: as many as fit, at least one.
std::span<const Window> first_batch(std::span<const Window> windows, int64_t batch_tokens) {
  size_t count = 0;
  for (int64_t tokens = 0; count < windows.size(); ++count) {
    tokens += static_cast<int64_t>(windows[count].sequence.tokens.size());
    if (count > 0 && tokens > batch_tokens) break;
  }
  return windows.first(count);
}

class TextMeasurer {
 public:
  TextMeasurer(LanguageModel& model, LanguageModel* reference, const TextOptions& options)
      : model_(model),
        reference_(reference),
        options_(options),
        vocabulary_(static_cast<size_t>(model.vocabulary_size())) {
    if (reference && reference->vocabulary_size() != model.vocabulary_size()) {
      fail("the model has ", model.vocabulary_size(), " tokens in its vocabulary and the reference ",
           reference->vocabulary_size(), ": their distributions can not be compared; choose a reference of one family");
    }
  }

  void measure(std::span<const Example> documents) {
    QAT_CHECK(options_.stride >= 0 && (options_.stride == 0 || options_.stride < options_.max_tokens));
    std::vector<Window> windows;
    for (const Example& document : documents) {
      check(document);
      cut_into_windows(document, measures_.documents.size(), options_, windows);
      measures_.documents.push_back({.line = document.line});
      if (options_.tokenizer == nullptr) continue;
      const TextUnits units = counted_units(*options_.tokenizer, document);
      measures_.documents.back().words = units.words;
      measures_.documents.back().bytes = units.bytes;
    }
    for (std::span<const Window> left(windows); !left.empty();) {
      const auto batch = first_batch(left, options_.batch_tokens);
      measure_batch(batch);
      left = left.subspan(batch.size());
      const size_t done = left.empty() ? documents.size() : left.front().document;
      if (options_.on_progress) {
        options_.on_progress(static_cast<int64_t>(done), static_cast<int64_t>(documents.size()));
      }
    }
  }

  TextMeasures take() { return std::move(measures_); }

 private:
  void check(const Example& document) const {
    QAT_CHECK(document.tokens.size() == document.trained.size());
    for (const int32_t token : document.tokens) {
      if (token >= 0 && static_cast<size_t>(token) < vocabulary_) continue;
      fail("line ", document.line, " of the data has token ", token, ", but the model's vocabulary has ids 0 to ",
           vocabulary_ - 1, ": use the tokenizer that belongs to the model");
    }
  }

  // A position that is measured.
  struct Place {
    size_t document;
    int64_t position;  // in its window
    size_t target;     // in the document: the token that it predicts
    int32_t correct;
  };

  void measure_batch(std::span<const Window> windows) {
    std::vector<BatchSequence> batch;
    std::vector<Place> places;
    for (const Window& window : windows) {
      batch.push_back(window.sequence);
      for (size_t i = 0; i < window.correct.size(); ++i) {
        const int64_t position = window.sequence.wanted[i];
        places.push_back({window.document, position, static_cast<size_t>(window.begin + position), window.correct[i]});
      }
    }
    const bool is_reference = reference_ == &model_;
    const std::vector<float> hidden = model_.hidden_rows(batch);
    std::vector<float> reference_hidden;
    if (reference_ && !is_reference) reference_hidden = reference_->hidden_rows(batch);
    const size_t step = rows_at_once(model_.vocabulary_size(), options_.logits_bytes);
    for (size_t first = 0; first < places.size(); first += step) {
      const size_t count = std::min(step, places.size() - first);
      const auto logits = logits_of(model_, hidden, first, count);
      std::span<const float> reference_logits;
      if (is_reference) reference_logits = logits;
      if (reference_ && !is_reference) reference_logits = logits_of(*reference_, reference_hidden, first, count);
      measure_rows(std::span(places).subspan(first, count), logits, reference_logits);
    }
  }

  static std::span<const float> logits_of(LanguageModel& model, std::span<const float> hidden, size_t first,
                                          size_t count) {
    const auto width = static_cast<size_t>(model.hidden_size());
    return model.logits(hidden.subspan(first * width, count * width));
  }

  void measure_rows(std::span<const Place> places, std::span<const float> logits, std::span<const float> reference) {
    QAT_CHECK(logits.size() == places.size() * vocabulary_);
    std::vector<TokenMeasures> results(places.size());
    const auto row = [&](std::span<const float> rows, size_t i) {
      return rows.empty() ? rows : rows.subspan(i * vocabulary_, vocabulary_);
    };
    for_each_row(places.size(), vocabulary_, options_.threads,
                 [&](size_t i) { results[i] = measure_row(row(logits, i), row(reference, i), places[i].correct); });
    for (size_t i = 0; i < places.size(); ++i) {
      add_token(results[i], measures_.documents[places[i].document], places[i].position);
      if (reference_) note_place(places[i], results[i], row(logits, i), row(reference, i));
    }
  }

  void add_token(const TokenMeasures& token, DocumentMeasures& document, int64_t position) {
    if (!std::isfinite(token.negative_log_likelihood + token.reference_negative_log_likelihood + token.divergence)) {
      const bool of_model = !std::isfinite(token.negative_log_likelihood);
      fail("the ", of_model || !reference_ ? "model" : "reference", "'s logits at position ", position, " of line ",
           document.line,
           " of the data are not finite: its weights or scales hold NaN or infinity, or its arithmetic "
           "overflowed; try --dtype float32");
    }
    ++document.tokens;
    document.negative_log_likelihood += token.negative_log_likelihood;
    if (!reference_) return;
    document.reference_negative_log_likelihood += token.reference_negative_log_likelihood;
    document.divergence += token.divergence;
    document.reverse_divergence += token.reverse_divergence;
    document.same_top += token.same_top ? 1.0 : 0.0;
    document.probability_change += token.probability_change;
    document.probability_change_squared += token.probability_change * token.probability_change;
    measures_.divergences.add(token.divergence);
    measures_.reverse_divergences.add(token.reverse_divergence);
    measures_.probability_changes.add(token.probability_change);
  }

  void note_place(const Place& place, const TokenMeasures& token, std::span<const float> row,
                  std::span<const float> reference_row) {
    measures_.places.count(place.position + 1, token.divergence);
    if (!measures_.places.would_keep(token.divergence)) return;
    StrayToken stray;
    stray.document = place.document;
    stray.position = place.target;
    stray.divergence = token.divergence;
    stray.probability = std::exp(-token.negative_log_likelihood);
    stray.reference_probability = std::exp(-token.reference_negative_log_likelihood);
    stray.choice = greedy_token(row);
    stray.reference_choice = greedy_token(reference_row);
    measures_.places.keep(std::move(stray));
  }

  LanguageModel& model_;
  LanguageModel* reference_;
  const TextOptions& options_;
  size_t vocabulary_;
  TextMeasures measures_;
};

}  // namespace

TextMeasures measure_text(LanguageModel& model, LanguageModel* reference, std::span<const Example> documents,
                          const TextOptions& options) {
  TextMeasurer measurer(model, reference, options);
  measurer.measure(documents);
  TextMeasures measures = measurer.take();
  if (options.tokenizer != nullptr) measures.places.read(documents, *options.tokenizer);
  const auto counted = [](const DocumentMeasures& document) { return document.tokens > 0; };
  if (!std::ranges::any_of(measures.documents, counted)) {
    fail("the data have no token to measure in ", documents.size(),
         " documents: a document needs at least one token after <bos> that the loss counts (for chats: an answer)");
  }
  return measures;
}

}  // namespace qat
