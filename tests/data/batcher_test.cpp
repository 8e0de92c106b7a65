#include "data/batcher.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "core/random.h"
#include "support/expect_error.h"

namespace qat {
namespace {

using testing::expect_error;

// Every token is unique to its example: example * 1000 + position. Even positions are trained.
Example numbered_example(int32_t number, int64_t size) {
  Example example;
  for (int32_t i = 0; i < size; ++i) {
    example.tokens.push_back(number * 1000 + i);
    example.trained.push_back(i % 2 == 0 ? 1 : 0);
  }
  return example;
}

std::vector<Example> random_examples(SplitMix64& random, int32_t count, uint64_t longest) {
  std::vector<Example> examples;
  for (int32_t i = 0; i < count; ++i)
    examples.push_back(numbered_example(i, static_cast<int64_t>(3 + random.below(longest))));
  return examples;
}

BatcherOptions options_of(int64_t sequence_length, uint64_t seed = 5) {
  BatcherOptions options;
  options.sequence_length = sequence_length;
  options.seed = seed;
  return options;
}

bool same(const Batch& a, const Batch& b) {
  return a.tokens == b.tokens && a.targets == b.targets && a.document_starts == b.document_starts &&
         a.trained_tokens == b.trained_tokens;
}

std::vector<Batch> epoch_of(BatchSource& source) {
  std::vector<Batch> batches;
  const int64_t count = source.rows_in_epoch();
  for (int64_t i = 0; i < count; ++i) batches.push_back(source.next());
  return batches;
}

TEST(Batcher, RowsNameTheirDocumentsInEveryEpoch) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  SplitMix64 random(seed);
  BatchSource source(random_examples(random, 100, 60), options_of(64, seed));
  for (int epoch = 0; epoch < 3; ++epoch) {
    source.seek({epoch, 0});
    std::vector<int> seen(source.examples().size());
    for (const Batch& batch : epoch_of(source)) {
      ASSERT_EQ(batch.documents.size() + 1, batch.document_starts.size());
      for (size_t i = 0; i < batch.documents.size(); ++i) {
        const auto number = static_cast<size_t>(batch.documents[i]);
        const std::vector<int32_t>& tokens = source.examples().at(number).tokens;
        EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), batch.tokens.begin() + batch.document_starts[i]));
        ++seen[number];
      }
    }
    EXPECT_EQ(seen, std::vector<int>(seen.size(), 1));
  }
}

TEST(Batcher, RowsHoldWholeDocumentsAndTargetsStayInside) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  SplitMix64 random(seed);
  const auto examples = random_examples(random, 300, 60);
  BatchSource source(examples, options_of(64, seed));
  std::map<int32_t, int> seen;
  int64_t trained = 0;
  for (const Batch& batch : epoch_of(source)) {
    ASSERT_LE(batch.tokens.size(), 64u);
    ASSERT_EQ(batch.tokens.size(), batch.targets.size());
    ASSERT_EQ(batch.document_starts.front(), 0);
    ASSERT_EQ(batch.document_starts.back(), static_cast<int64_t>(batch.tokens.size()));
    int64_t targets = 0;
    for (size_t document = 0; document + 1 < batch.document_starts.size(); ++document) {
      const auto start = static_cast<size_t>(batch.document_starts[document]);
      const auto end = static_cast<size_t>(batch.document_starts[document + 1]);
      const int32_t number = batch.tokens[start] / 1000;
      ++seen[number];
      ASSERT_EQ(end - start, examples[static_cast<size_t>(number)].tokens.size());
      for (size_t i = start; i < end; ++i) {
        ASSERT_EQ(batch.tokens[i], number * 1000 + static_cast<int32_t>(i - start));
        const bool is_target = i + 1 < end && (i + 1 - start) % 2 == 0;
        ASSERT_EQ(batch.targets[i], is_target ? batch.tokens[i] + 1 : kIgnoredTarget);
        targets += is_target ? 1 : 0;
      }
    }
    ASSERT_EQ(batch.trained_tokens, targets);
    trained += targets;
  }
  EXPECT_EQ(seen.size(), examples.size());
  for (const auto& [number, times] : seen) EXPECT_EQ(times, 1) << number;
  EXPECT_EQ(trained, source.trained_tokens_per_epoch());
}

TEST(Batcher, PackingIsDense) {
  SplitMix64 random(3);
  const auto examples = random_examples(random, 2000, 100);
  BatchSource source(examples, options_of(256));
  int64_t tokens = 0;
  for (const Example& example : examples) tokens += static_cast<int64_t>(example.tokens.size());
  EXPECT_GE(static_cast<double>(tokens) / static_cast<double>(source.rows_in_epoch() * 256), 0.95);
}

TEST(Batcher, SeedDecidesTheOrderAndEpochsDiffer) {
  SplitMix64 random(9);
  const auto examples = random_examples(random, 100, 30);
  BatchSource a(examples, options_of(64, 1));
  BatchSource b(examples, options_of(64, 1));
  BatchSource c(examples, options_of(64, 2));
  const Batch first = a.next();
  EXPECT_TRUE(same(first, b.next()));
  EXPECT_FALSE(same(first, c.next()));
  b.seek({1, 0});
  EXPECT_FALSE(same(first, b.next()));
}

TEST(Batcher, ResumesAtAnyPosition) {
  SplitMix64 random(11);
  const auto examples = random_examples(random, 60, 40);
  BatchSource whole(examples, options_of(64));
  std::vector<BatchPosition> positions;
  std::vector<Batch> batches;
  for (int i = 0; i < 100; ++i) {
    positions.push_back(whole.position());
    batches.push_back(whole.next());
  }
  EXPECT_GE(whole.position().epoch, 2);
  for (const size_t start : {0u, 1u, 17u, 50u, 99u}) {
    BatchSource resumed(examples, options_of(64));
    resumed.seek(positions[start]);
    for (size_t i = start; i < batches.size(); ++i) {
      ASSERT_EQ(resumed.position(), positions[i]);
      ASSERT_TRUE(same(resumed.next(), batches[i])) << start << " " << i;
    }
  }
}

TEST(Batcher, WithoutShuffleTheOrderIsThatOfTheFile) {
  BatcherOptions options = options_of(10);
  options.shuffle = false;
  BatchSource source({numbered_example(1, 8), numbered_example(2, 8), numbered_example(3, 8)}, options);
  for (int32_t number = 1; number <= 3; ++number) EXPECT_EQ(source.next().tokens[0], number * 1000);
  EXPECT_EQ(source.next().tokens[0], 1000);
}

TEST(Batcher, LongExamplesAreCutAndCounted) {
  Example prompt_only = numbered_example(3, 20);
  std::fill(prompt_only.trained.begin(), prompt_only.trained.begin() + 10, uint8_t{0});
  BatchSource source({numbered_example(1, 30), numbered_example(2, 10), prompt_only}, options_of(10));
  EXPECT_EQ(source.cut_examples(), 2);
  EXPECT_EQ(source.untrained_examples(), 1);
  EXPECT_EQ(source.example_count(), 2);
  EXPECT_EQ(source.rows_in_epoch(), 2);
  EXPECT_EQ(source.next().tokens.size(), 10u);
}

TEST(Batcher, ImpossibleRequestsAreErrors) {
  const std::vector<Example> one = {numbered_example(1, 8)};
  expect_error([&] { BatchSource(one, options_of(1)); }, {"sequence length is 1"});
  expect_error([&] { BatchSource({}, options_of(8)); }, {"no token to train on"});
  BatchSource source(one, options_of(8));
  expect_error([&] { source.seek({0, 2}); }, {"row 2", "1 rows", "resumed"});
  expect_error([&] { source.seek({-1, 0}); }, {"negative"});
}

}  // namespace
}  // namespace qat
