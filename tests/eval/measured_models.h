// Models with made-up measures, for tests of what is reported of them.
#pragma once

#include <string>
#include <vector>

#include "core/random.h"
#include "eval/comparison.h"

namespace qat::testing {

// `documents` documents of ten tokens, three words and 20 bytes, whose loss is `loss` nats per token and whose KL `kl`,
// both with some noise that only depends on the document. Of `questions` questions every fourth is answered wrong, and
// the first `mistakes` too.
inline MeasuredModel measured_model(const std::string& name, double loss, double kl, size_t documents = 40,
                                    size_t questions = 0, size_t mistakes = 0) {
  MeasuredModel model;
  model.name = name;
  model.path = "runs/" + name;
  model.bytes = 2'000'000;
  model.bits_per_weight = 4.5;
  SplitMix64 random(17);
  for (size_t i = 0; i < documents; ++i) {
    const double noise = random.uniform() - 0.5;
    DocumentMeasures document{.line = static_cast<int64_t>(i) + 1, .tokens = 10, .words = 3, .bytes = 20};
    document.negative_log_likelihood = 10 * (loss + noise);
    document.divergence = 10 * kl * (1 + noise);
    document.reverse_divergence = 20 * kl * (1 + noise);
    document.same_top = 9;
    document.probability_change = -0.1;
    model.text.documents.push_back(document);
    for (int token = 0; token < 10; ++token) {
      model.text.divergences.add(kl * (1 + noise));
      model.text.reverse_divergences.add(2 * kl * (1 + noise));
      model.text.probability_changes.add(-0.01);
    }
  }
  for (size_t i = 0; i < questions; ++i) {
    ChoiceResult result;
    result.line = static_cast<int64_t>(i) + 1;
    result.answer = 1;
    result.log_likelihoods = {-2, -1.5};
    result.correct = i % 4 != 3 && i >= mistakes;
    result.chosen = result.correct ? 1 : 0;
    model.choices.push_back(result);
  }
  return model;
}

}  // namespace qat::testing
