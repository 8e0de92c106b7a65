// Where in the data a model strays from its reference: how far by the length of the context, and the tokens where it
// strays most.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/tokenizer.h"

namespace qat {

// A token of a document at which the distributions differ. Texts are empty until read() and without a tokenizer.
struct StrayToken {
  size_t document = 0;  // index among the measured documents
  size_t position = 0;  // of the right token in the document
  double divergence = 0;
  double probability = 0;  // that the model gives to the right token
  double reference_probability = 0;
  int32_t choice = 0;  // the model's most likely token
  int32_t reference_choice = 0;
  std::string before;  // the end of the text before the token
  std::string right;   // the token, and what model and reference would have written
  std::string chosen;
  std::string reference_chosen;
};

struct ContextMeasures {
  int64_t tokens = 0;
  double divergence = 0;  // sum
};

class DivergencePlaces {
 public:
  static constexpr size_t kMostKept = 10;
  static constexpr size_t kCharactersBefore = 30;
  // The least number of tokens before the right one, of each range.
  static constexpr std::array<int64_t, 4> kContexts{1, 33, 129, 513};

  // Adds a token to the range of its context, of one token or more.
  void count(int64_t context, double divergence);
  // Whether keep() would keep a token that comes after all others: the rest of it need not be found out otherwise.
  bool would_keep(double divergence) const;
  // Keeps the kMostKept tokens of largest divergence; of equal ones those that came first.
  void keep(StrayToken token);
  // The places of further documents, of which `documents_before` come first.
  void merge(const DivergencePlaces& other, size_t documents_before);
  // Puts the texts to the kept tokens of `documents`.
  void read(std::span<const Example> documents, const Tokenizer& tokenizer);

  std::span<const StrayToken> worst() const { return worst_; }  // largest divergence first
  const std::array<ContextMeasures, kContexts.size()>& by_context() const { return by_context_; }

 private:
  std::vector<StrayToken> worst_;
  std::array<ContextMeasures, kContexts.size()> by_context_{};
};

}  // namespace qat
