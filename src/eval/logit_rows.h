// Many rows of logits without many of them existing at a time, and work on them by several threads. Used by the
// measures.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "gemma4/language_model.h"

namespace qat {

// Tokens that are read in one batch: enough to fill matrix products, few enough that activations stay small.
inline constexpr int64_t kBatchTokens = 1024;
// Most bytes of one model's logits at a time, but for a single row that is larger.
inline constexpr int64_t kLogitsBytes = int64_t{128} << 20;

size_t rows_at_once(int64_t vocabulary, int64_t logits_bytes = kLogitsBytes);

// Calls visit(first row, logits of some rows) for all rows of hidden values, in order.
void visit_logits(LanguageModel& model, std::span<const float> hidden_rows,
                  const std::function<void(size_t first, std::span<const float> logits)>& visit);

// Calls work(i) for 0 <= i < count, where each takes time for `vocabulary` logits; `threads` 0: as many as the machine
// has. Every i must write its own result, so that the split over threads changes nothing.
void for_each_row(size_t count, size_t vocabulary, int threads, const std::function<void(size_t)>& work);

}  // namespace qat
