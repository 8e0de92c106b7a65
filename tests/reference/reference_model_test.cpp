#include "reference/reference_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "reference/random_gguf.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using testing::expect_error;
using testing::RandomGguf;

class ReferenceModelTest : public ::testing::Test {
 protected:
  const GgufFile& file(const RandomGguf& wanted) {
    const auto path = folder_ / ("model" + std::to_string(files_.size()) + ".gguf");
    testing::write_random_gguf(path, wanted);
    return *files_.emplace_back(std::make_unique<GgufFile>(path));
  }

 private:
  testing::TemporaryFolder folder_;
  std::vector<std::unique_ptr<GgufFile>> files_;
};

std::vector<int32_t> random_tokens(size_t count, uint64_t seed) {
  SplitMix64 random(seed);
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(random.below(testing::kVocabulary)));
  return tokens;
}

std::vector<float> evaluate(LanguageModel& model, std::span<const int32_t> tokens, int64_t first = 0) {
  std::vector<float> logits;
  int64_t next = first;
  model.evaluate(tokens, first, [&](int64_t position, std::span<const float> rows) {
    EXPECT_EQ(position, next);
    next += static_cast<int64_t>(rows.size()) / testing::kVocabulary;
    logits.insert(logits.end(), rows.begin(), rows.end());
  });
  EXPECT_EQ(next, static_cast<int64_t>(tokens.size()));
  return logits;
}

// Logits of a session that gets `prompt` tokens at once and the others one by one, from the prompt's last position on.
std::vector<float> decode(LanguageModel& model, std::span<const int32_t> tokens, size_t prompt) {
  std::vector<float> logits;
  const auto session = model.start();
  for (size_t i = prompt; i <= tokens.size(); ++i) {
    const auto row = session->append(i == prompt ? tokens.first(prompt) : tokens.subspan(i - 1, 1));
    logits.insert(logits.end(), row.begin(), row.end());
  }
  return logits;
}

double largest_difference(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return largest;
}

const std::vector<RandomGguf>& kinds() {
  static const std::vector<RandomGguf> all{{}, {.experts = true}, {.gemma3 = true}, {.head_dim = 64}};
  return all;
}

// The prompt is longer than the window, so sliding layers drop keys in both.
TEST_F(ReferenceModelTest, FloatDecodingEqualsEvaluation) {
  for (const RandomGguf& kind : kinds()) {
    const auto model = make_reference_model(file(kind), {});
    const auto tokens = random_tokens(150, 5);
    const auto all = evaluate(*model, tokens);
    for (const size_t prompt : {size_t{1}, size_t{40}, size_t{130}}) {
      const auto steps = decode(*model, tokens, prompt);
      const auto expected = std::span(all).subspan((prompt - 1) * testing::kVocabulary);
      // Sums over other numbers of keys are ordered otherwise; experts may tie.
      EXPECT_LE(largest_difference(steps, expected), 2e-4)
          << "seed 5, prompt " << prompt << ", experts " << kind.experts;
    }
  }
}

// Below 64 tokens llama.cpp's kernels give a token the same numbers whatever comes with it (F32 and BF16 weights aside,
// of which these kinds have none).
TEST_F(ReferenceModelTest, DeviceDecodingEqualsEvaluationToTheBit) {
  for (const CacheType cache : {CacheType::F16, CacheType::Q8_0}) {
    for (const RandomGguf& kind : {RandomGguf{.gemma3 = true}, RandomGguf{.gemma3 = true, .head_dim = 64}}) {
      const auto model = make_reference_model(file(kind), {ArithmeticKind::Device, cache, 2});
      const auto tokens = random_tokens(60, 6);
      const auto all = evaluate(*model, tokens);
      EXPECT_EQ(largest_difference(decode(*model, tokens, 20), std::span(all).subspan(19 * testing::kVocabulary)), 0.0);
    }
  }
}

TEST_F(ReferenceModelTest, ArithmeticsAgreeToTheirPrecision) {
  for (const RandomGguf& kind : kinds()) {
    const GgufFile& written = file(kind);
    const auto tokens = random_tokens(12, 7);
    const auto exact = evaluate(*make_reference_model(written, {}), tokens);
    const auto device = evaluate(*make_reference_model(written, {ArithmeticKind::Device, std::nullopt, 2}), tokens);
    const auto quantized =
        evaluate(*make_reference_model(written, {ArithmeticKind::Float, CacheType::Q8_0, 2}), tokens);
    double scale = 0;
    for (const float logit : exact) scale = std::max(scale, std::fabs(static_cast<double>(logit)));
    EXPECT_GT(largest_difference(exact, device), 0.0);
    EXPECT_LE(largest_difference(exact, device), 0.5 * scale);
    EXPECT_GT(largest_difference(exact, quantized), 0.0);
    EXPECT_LE(largest_difference(exact, quantized), 0.5 * scale);
  }
}

TEST_F(ReferenceModelTest, ResultsDoNotDependOnThreads) {
  for (const ArithmeticKind arithmetic : {ArithmeticKind::Float, ArithmeticKind::Device}) {
    const GgufFile& written = file({});
    const auto tokens = random_tokens(90, 8);
    const auto one = evaluate(*make_reference_model(written, {arithmetic, std::nullopt, 1}), tokens);
    const auto three = evaluate(*make_reference_model(written, {arithmetic, std::nullopt, 3}), tokens);
    EXPECT_EQ(largest_difference(one, three), 0.0);
  }
}

TEST_F(ReferenceModelTest, EvaluationStartsWhereAsked) {
  const auto model = make_reference_model(file({}), {});
  const auto tokens = random_tokens(20, 9);
  const auto all = evaluate(*model, tokens);
  const auto tail = evaluate(*model, tokens, 13);
  EXPECT_EQ(largest_difference(tail, std::span(all).subspan(13 * testing::kVocabulary)), 0.0);
}

std::vector<float> logits_of_batch(LanguageModel& model, const std::vector<BatchSequence>& batch) {
  const auto rows = model.hidden_rows(batch);
  const auto logits = model.logits(rows);
  return {logits.begin(), logits.end()};
}

TEST_F(ReferenceModelTest, ABatchOfSequencesGivesTheBitsOfEvaluation) {
  for (const ArithmeticKind arithmetic : {ArithmeticKind::Float, ArithmeticKind::Device}) {
    const auto model = make_reference_model(file({}), {arithmetic, std::nullopt, 2});
    const auto first = random_tokens(600, 9);  // more than a chunk
    const auto second = random_tokens(30, 10);
    const auto found =
        logits_of_batch(*model, {{first, {5, 511, 512, 599}, std::nullopt}, {second, {29}, std::nullopt}});
    const auto all = evaluate(*model, first);
    const auto row = [](const std::vector<float>& rows, size_t i) {
      return std::span(rows).subspan(i * testing::kVocabulary, testing::kVocabulary);
    };
    for (const auto& [place, position] : {std::pair<size_t, size_t>{0, 5}, {1, 511}, {2, 512}, {3, 599}}) {
      EXPECT_EQ(largest_difference(row(found, place), row(all, position)), 0.0) << position;
    }
    EXPECT_EQ(largest_difference(row(found, 4), evaluate(*model, second, 29)), 0.0);
  }
}

// A question of 40 tokens, read once, and two answers to it.
TEST_F(ReferenceModelTest, SequencesThatContinueAnotherEqualReadingBoth) {
  for (const auto& [arithmetic, tolerance] :
       {std::pair{ArithmeticKind::Float, 2e-4}, std::pair{ArithmeticKind::Device, 0.0}}) {
    for (const RandomGguf& kind : {RandomGguf{.gemma3 = true}, RandomGguf{.gemma3 = true, .head_dim = 64}}) {
      const auto model = make_reference_model(file(kind), {arithmetic, std::nullopt, 2});
      const auto tokens = random_tokens(60, 11);
      const std::vector<int32_t> question(tokens.begin(), tokens.begin() + 40);
      const std::vector<int32_t> answers[] = {{tokens.begin() + 40, tokens.begin() + 55},
                                              {tokens.begin() + 50, tokens.end()}};
      const auto found =
          logits_of_batch(*model, {{question, {39}, std::nullopt}, {answers[0], {0, 14}, 0}, {answers[1], {9}, 0}});
      std::vector<float> wanted = evaluate(*model, question, 39);
      for (const auto& answer : answers) {
        std::vector<int32_t> whole = question;
        whole.insert(whole.end(), answer.begin(), answer.end());
        const auto rows = evaluate(*model, whole, 40);
        const auto end = static_cast<std::ptrdiff_t>(testing::kVocabulary);
        if (&answer == answers) wanted.insert(wanted.end(), rows.begin(), rows.begin() + end);
        wanted.insert(wanted.end(), rows.end() - end, rows.end());
      }
      EXPECT_LE(largest_difference(found, wanted), tolerance);
    }
  }
}

TEST_F(ReferenceModelTest, WrongInputIsAnError) {
  const auto model = make_reference_model(file({}), {});
  const std::vector<int32_t> outside{2, testing::kVocabulary};
  expect_error([&] { evaluate(*model, outside); }, {"token id 96", "vocabulary of 96"});
  expect_error([&] { model->start()->append({}); }, {"at least one token"});
  expect_error(
      [&] {
        make_reference_model(file({.head_dim = 16}), {ArithmeticKind::Float, CacheType::Q8_0, 1});
      },
      {"q8_0", "32", "16"});
}

}  // namespace
}  // namespace qat
