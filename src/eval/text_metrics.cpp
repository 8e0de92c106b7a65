#include "eval/text_metrics.h"

#include <algorithm>
#include <cmath>
#include <thread>

#include "core/error.h"
#include "eval/logits.h"
#include "eval/row_comparison.h"
#include "eval/text_units.h"

namespace qat {
namespace {

// A document, or the part of it that is measured in one context.
struct Window {
  std::vector<int32_t> tokens;
  std::vector<int64_t> positions;  // whose logits are measured: each predicts the token after it
  int64_t begin = 0;               // in the document, of the window's second token
};

std::vector<Window> cut_into_windows(const Example& document, int64_t max_tokens) {
  const auto size = static_cast<int64_t>(document.tokens.size());
  const int64_t length = max_tokens > 0 ? std::max<int64_t>(max_tokens, 2) : std::max<int64_t>(size, 2);
  std::vector<Window> windows;
  for (int64_t begin = 1; begin < size; begin += length - 1) {
    const int64_t end = std::min(begin + length - 1, size);
    Window window;
    window.begin = begin;
    window.tokens.push_back(document.tokens.front());
    for (int64_t i = begin; i < end; ++i) {
      if (document.trained[static_cast<size_t>(i)] != 0) {
        window.positions.push_back(static_cast<int64_t>(window.tokens.size()) - 1);
      }
      window.tokens.push_back(document.tokens[static_cast<size_t>(i)]);
    }
    if (!window.positions.empty()) windows.push_back(std::move(window));
  }
  return windows;
}

using Rows = std::vector<std::span<const float>>;
// Receives rows of `positions`, the first of which is positions[first].
using RowsSink = std::function<void(size_t first, const Rows& rows)>;

// The rows of `positions` only, chunk by chunk. Nothing after the last of them is computed.
void visit_rows(LanguageModel& model, std::span<const int32_t> tokens, std::span<const int64_t> positions,
                const RowsSink& sink) {
  const auto vocabulary = static_cast<size_t>(model.vocabulary_size());
  size_t next = 0;
  model.evaluate(tokens.first(static_cast<size_t>(positions.back()) + 1), positions.front(),
                 [&](int64_t first_position, std::span<const float> logits) {
                   const size_t first = next;
                   Rows rows;
                   for (; next < positions.size(); ++next) {
                     const auto row = static_cast<size_t>(positions[next] - first_position);
                     if ((row + 1) * vocabulary > logits.size()) break;
                     rows.push_back(logits.subspan(row * vocabulary, vocabulary));
                   }
                   if (!rows.empty()) sink(first, rows);
                 });
  QAT_CHECK(next == positions.size());
}

// Calls `work(i)` for 0 <= i < count; every i writes its own result, so the split over threads changes nothing.
void for_each_row(size_t count, size_t vocabulary, int threads, const std::function<void(size_t)>& work) {
  constexpr size_t kLogitsPerThread = size_t{1} << 20;  // less is not worth starting a thread
  const auto available =
      static_cast<size_t>(threads > 0 ? threads : static_cast<int>(std::thread::hardware_concurrency()));
  const size_t used = std::clamp<size_t>(count * vocabulary / kLogitsPerThread, 1, std::max<size_t>(available, 1));
  std::vector<std::jthread> others;
  for (size_t thread = 1; thread < used; ++thread) {
    others.emplace_back([=, &work] {
      for (size_t i = thread; i < count; i += used) work(i);
    });
  }
  for (size_t i = 0; i < count; i += used) work(i);
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

  void add(const Example& document) {
    check(document);
    measures_.documents.push_back({.line = document.line});
    if (options_.tokenizer != nullptr) {
      const TextUnits units = counted_units(*options_.tokenizer, document);
      measures_.documents.back().words = units.words;
      measures_.documents.back().bytes = units.bytes;
    }
    const size_t bytes_per_row = vocabulary_ * sizeof(float);
    const size_t rows_held = std::max<size_t>(static_cast<size_t>(options_.reference_bytes) / bytes_per_row, 1);
    for (const Window& window : cut_into_windows(document, options_.max_tokens)) {
      const size_t step = reference_ ? rows_held : window.positions.size();
      for (size_t begin = 0; begin < window.positions.size(); begin += step) {
        const size_t count = std::min(step, window.positions.size() - begin);
        measure_piece(window, std::span(window.positions).subspan(begin, count));
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

  void measure_piece(const Window& window, std::span<const int64_t> positions) {
    if (reference_) hold_reference_rows(window, positions);
    visit_rows(model_, window.tokens, positions, [&](size_t first, const Rows& rows) {
      std::vector<TokenMeasures> results(rows.size());
      for_each_row(rows.size(), vocabulary_, options_.threads, [&](size_t i) {
        const int32_t correct = window.tokens[static_cast<size_t>(positions[first + i]) + 1];
        results[i] = measure_row(rows[i], reference_row(first + i), correct);
      });
      for (size_t i = 0; i < results.size(); ++i) {
        add_token(results[i], positions[first + i]);
        if (!reference_) continue;
        const int64_t context = positions[first + i] + 1;
        const auto position = static_cast<size_t>(window.begin + positions[first + i]);
        note_place(measures_.documents.size() - 1, position, context, results[i], rows[i], reference_row(first + i));
      }
    });
  }

  void hold_reference_rows(const Window& window, std::span<const int64_t> positions) {
    reference_rows_.resize(positions.size() * vocabulary_);
    visit_rows(*reference_, window.tokens, positions, [&](size_t first, const Rows& rows) {
      for (size_t i = 0; i < rows.size(); ++i) {
        std::ranges::copy(rows[i], reference_rows_.begin() + static_cast<std::ptrdiff_t>((first + i) * vocabulary_));
      }
    });
  }

  std::span<const float> reference_row(size_t i) const {
    if (!reference_) return {};
    return std::span(reference_rows_).subspan(i * vocabulary_, vocabulary_);
  }

  void add_token(const TokenMeasures& token, int64_t position) {
    DocumentMeasures& document = measures_.documents.back();
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

  // Of the token at `position` of a document, which the model predicts from `context` tokens.
  void note_place(size_t document, size_t position, int64_t context, const TokenMeasures& token,
                  std::span<const float> row, std::span<const float> reference_row) {
    measures_.places.count(context, token.divergence);
    if (!measures_.places.would_keep(token.divergence)) return;
    StrayToken stray;
    stray.document = document;
    stray.position = position;
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
  std::vector<float> reference_rows_;
  TextMeasures measures_;
};

}  // namespace

TextMeasures measure_text(LanguageModel& model, LanguageModel* reference, std::span<const Example> documents,
                          const TextOptions& options) {
  TextMeasurer measurer(model, reference, options);
  for (size_t i = 0; i < documents.size(); ++i) {
    measurer.add(documents[i]);
    if (options.on_progress) options.on_progress(static_cast<int64_t>(i) + 1, static_cast<int64_t>(documents.size()));
  }
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
