#include "eval/divergence_places.h"

#include <algorithm>

#include "core/error.h"
#include "data/utf8.h"

namespace qat {

void DivergencePlaces::count(int64_t context, double divergence) {
  QAT_CHECK(context >= kContexts.front());
  const auto above = std::ranges::upper_bound(kContexts, context);
  ContextMeasures& range = by_context_[static_cast<size_t>(above - kContexts.begin()) - 1];
  ++range.tokens;
  range.divergence += divergence;
}

bool DivergencePlaces::would_keep(double divergence) const {
  return worst_.size() < kMostKept || divergence > worst_.back().divergence;
}

void DivergencePlaces::keep(StrayToken token) {
  const auto place = std::ranges::upper_bound(worst_, token.divergence, std::greater<>(), &StrayToken::divergence);
  worst_.insert(place, std::move(token));
  if (worst_.size() > kMostKept) worst_.pop_back();
}

void DivergencePlaces::merge(const DivergencePlaces& other, size_t documents_before) {
  for (StrayToken token : other.worst_) {
    token.document += documents_before;
    keep(std::move(token));
  }
  for (size_t i = 0; i < by_context_.size(); ++i) {
    by_context_[i].tokens += other.by_context_[i].tokens;
    by_context_[i].divergence += other.by_context_[i].divergence;
  }
}

void DivergencePlaces::read(std::span<const Example> documents, const Tokenizer& tokenizer) {
  const auto text_of = [&](std::span<const int32_t> tokens) {
    return tokenizer.decode(tokens, /*skip_special=*/false);
  };
  // A model may have rows for more tokens than its tokenizer names.
  const auto piece_of = [&](int32_t id) {
    return id < tokenizer.vocabulary_size() ? text_of(std::span(&id, 1)) : join("token ", id);
  };
  for (StrayToken& token : worst_) {
    const std::span<const int32_t> tokens(documents[token.document].tokens);
    token.before = last_characters(text_of(tokens.first(token.position)), kCharactersBefore);
    token.right = piece_of(tokens[token.position]);
    token.chosen = piece_of(token.choice);
    token.reference_chosen = piece_of(token.reference_choice);
  }
}

}  // namespace qat
