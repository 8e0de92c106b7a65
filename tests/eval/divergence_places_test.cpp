#include "eval/divergence_places.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/random.h"
#include "data/small_tokenizer.h"
#include "eval/table_model.h"
#include "eval/text_summary.h"
#include "support/fresh_seed.h"

namespace qat {
namespace {

using testing::small_tokenizer;

StrayToken stray(size_t document, size_t position, double divergence) {
  StrayToken token;
  token.document = document;
  token.position = position;
  token.divergence = divergence;
  return token;
}

std::vector<std::pair<size_t, size_t>> places_of(std::span<const StrayToken> tokens) {
  std::vector<std::pair<size_t, size_t>> places;
  for (const StrayToken& token : tokens) places.emplace_back(token.document, token.position);
  return places;
}

// Few different divergences, so that many are equal.
TEST(DivergencePlaces, KeepsTheWorstTokensAndOfEqualOnesTheFirst) {
  const uint64_t seed = testing::fresh_seed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  SplitMix64 random(seed);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<StrayToken> all;
    DivergencePlaces one, first, second;
    const size_t count = random.below(60);
    for (size_t i = 0; i < count; ++i) {
      const size_t document = i / 7;
      const StrayToken token = stray(document, i % 7, static_cast<double>(random.below(9)));
      all.push_back(token);
      if (one.would_keep(token.divergence)) one.keep(token);
      if (document < 4) {
        first.keep(token);
      } else {
        second.keep(stray(document - 4, token.position, token.divergence));
      }
    }
    std::ranges::stable_sort(all, std::greater<>(), &StrayToken::divergence);
    all.resize(std::min(all.size(), DivergencePlaces::kMostKept));
    EXPECT_EQ(places_of(one.worst()), places_of(all));
    first.merge(second, 4);
    EXPECT_EQ(places_of(first.worst()), places_of(all));
  }
}

TEST(DivergencePlaces, CountsByTheLengthOfTheContext) {
  DivergencePlaces places, more;
  for (const int64_t context : {1, 32, 33, 128, 129, 512}) places.count(context, static_cast<double>(context));
  for (const int64_t context : {513, 100'000}) more.count(context, 0.5);
  places.merge(more, 0);
  EXPECT_EQ(places.by_context()[0].divergence, 33);
  EXPECT_EQ(places.by_context()[1].divergence, 161);
  EXPECT_EQ(places.by_context()[2].divergence, 641);
  EXPECT_EQ(places.by_context()[3].divergence, 1);
  for (const ContextMeasures& range : places.by_context()) EXPECT_EQ(range.tokens, 2);
}

// Row 1 alone differs. With windows of three tokens the document 0 2 0 1 2 1 0 is measured as 0 2 0, 0 1 2, 0 1 0.
TEST(DivergencePlaces, AreFoundInTheWindowsOfDocuments) {
  TableModel model({{0.5, 0.25, 0.25}, {0.2, 0.3, 0.5}, {0.1, 0.1, 0.8}});
  TableModel reference({{0.5, 0.25, 0.25}, {0.6, 0.3, 0.1}, {0.1, 0.1, 0.8}});
  Example document;
  document.tokens = {0, 2, 0, 1, 2, 1, 0};
  document.trained.assign(document.tokens.size(), 1);
  TextOptions options;
  options.max_tokens = 3;
  const TextMeasures measures = measure_text(model, &reference, std::vector{document, document}, options);
  const auto worst = measures.places.worst();
  ASSERT_EQ(worst.size(), DivergencePlaces::kMostKept);
  EXPECT_THAT(places_of(worst.first(4)),
              ::testing::ElementsAre(std::pair(0, 4), std::pair(0, 6), std::pair(1, 4), std::pair(1, 6)));
  EXPECT_EQ(worst[4].divergence, 0);
  EXPECT_NEAR(worst[0].probability, 0.5, 1e-6);
  EXPECT_NEAR(worst[0].reference_probability, 0.1, 1e-6);
  EXPECT_EQ(worst[0].choice, 2);
  EXPECT_EQ(worst[0].reference_choice, 0);
  const ContextMeasures& near = measures.places.by_context().front();
  EXPECT_EQ(near.tokens, 12);
  EXPECT_DOUBLE_EQ(near.divergence, measures.documents[0].divergence + measures.documents[1].divergence);
}

TEST(DivergencePlaces, SpellTheTextBefore) {
  Example document;
  document.tokens = small_tokenizer().encode("What is eleven plus nine and then seven more? Twenty.");
  const size_t position = document.tokens.size() - 1;
  StrayToken token = stray(0, position, 1);
  token.choice = document.tokens.front();
  token.reference_choice = static_cast<int32_t>(small_tokenizer().vocabulary_size()) + 3;
  DivergencePlaces places;
  places.keep(token);
  places.read(std::span(&document, 1), small_tokenizer());
  const StrayToken& read = places.worst().front();
  const std::string before = small_tokenizer().decode(std::span(document.tokens).first(position));
  EXPECT_EQ(read.before, before.substr(before.size() - 30));
  EXPECT_EQ(read.right, small_tokenizer().decode(std::span(&document.tokens[position], 1)));
  EXPECT_EQ(read.chosen, small_tokenizer().decode(std::span(&token.choice, 1)));
  EXPECT_EQ(read.reference_chosen, "token " + std::to_string(token.reference_choice));
}

}  // namespace
}  // namespace qat
