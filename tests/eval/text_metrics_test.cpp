#include "eval/text_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "core/error.h"
#include "core/random.h"
#include "eval/table_model.h"

namespace qat {
namespace {

using testing::HasSubstr;

const std::vector<std::vector<double>> kModel{{0.5, 0.25, 0.25}, {0.2, 0.3, 0.5}, {0.1, 0.1, 0.8}};
const std::vector<std::vector<double>> kReference{{0.25, 0.5, 0.25}, {0.1, 0.3, 0.6}, {0.1, 0.1, 0.8}};

Example example(std::vector<int32_t> tokens, std::vector<uint8_t> trained) {
  Example document;
  document.tokens = std::move(tokens);
  document.trained = std::move(trained);
  document.line = 1;
  return document;
}

double divergence(const std::vector<double>& p, const std::vector<double>& q) {
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += p[i] * std::log(p[i] / q[i]);
  return sum;
}

TEST(TextMetrics, PerplexityByHand) {
  TableModel model(kModel, 5.0);
  const std::vector<Example> documents{example({0, 1, 2, 2}, {1, 1, 0, 1}), example({0, 0}, {0, 1})};
  const TextMeasures measures = measure_text(model, nullptr, documents, {});
  // Counted: 1 after 0, 2 after 2; 0 after 0. The first token is never counted.
  ASSERT_EQ(measures.documents.size(), 2u);
  EXPECT_EQ(measures.documents[0].tokens, 2);
  EXPECT_NEAR(measures.documents[0].negative_log_likelihood, -std::log(0.25) - std::log(0.8), 1e-6);
  EXPECT_NEAR(measures.documents[1].negative_log_likelihood, -std::log(0.5), 1e-6);
  const TextSummary summary = summarize(measures);
  EXPECT_EQ(summary.tokens, 3);
  EXPECT_EQ(summary.documents, 2);
  EXPECT_NEAR(summary.perplexity, std::pow(0.25 * 0.8 * 0.5, -1.0 / 3), 1e-5);
  EXPECT_FALSE(summary.divergence);
}

TEST(TextMetrics, DistanceFromAReferenceByHand) {
  TableModel model(kModel, 5.0);
  TableModel reference(kReference, -20.0, 2);
  const std::vector<Example> documents{example({0, 1, 2, 2}, {0, 1, 1, 1})};
  const TextMeasures measures = measure_text(model, &reference, documents, {});
  const double first = divergence(kReference[0], kModel[0]);
  const double second = divergence(kReference[1], kModel[1]);
  ASSERT_EQ(measures.token_divergences.size(), 3u);
  EXPECT_NEAR(measures.token_divergences[0], first, 1e-6);
  EXPECT_NEAR(measures.token_divergences[1], second, 1e-6);
  EXPECT_NEAR(measures.token_divergences[2], 0.0, 1e-6);
  const TextSummary summary = summarize(measures);
  ASSERT_TRUE(summary.divergence);
  EXPECT_NEAR(summary.divergence->mean, (first + second) / 3, 1e-6);
  EXPECT_NEAR(summary.divergence->median, second, 1e-6);
  EXPECT_NEAR(summary.divergence->maximum, first, 1e-6);
  EXPECT_NEAR(summary.divergence->percentile_90, second + 0.8 * (first - second), 1e-6);
  EXPECT_NEAR(summary.divergence->same_top_share, 2.0 / 3, 1e-12);
  // Correct tokens 1, 2, 2: the model's probability minus the reference's is 0.25 - 0.5, 0.5 - 0.6, 0.
  EXPECT_NEAR(summary.divergence->mean_probability_change, -0.35 / 3, 1e-6);
  EXPECT_NEAR(summary.divergence->rms_probability_change, std::sqrt((0.0625 + 0.01) / 3), 1e-6);
  EXPECT_NEAR(summary.divergence->reference_perplexity, std::pow(0.5 * 0.6 * 0.8, -1.0 / 3), 1e-5);
}

TEST(TextMetrics, AModelAgainstItselfIsAtDistanceZero) {
  TableModel model(kModel);
  TableModel shifted(kModel, 7.0);
  const std::vector<Example> documents{example({0, 1, 2, 0, 1}, {1, 1, 1, 1, 1})};
  const TextSummary summary = summarize(measure_text(model, &shifted, documents, {}));
  EXPECT_LT(summary.divergence->maximum, 1e-6);
  EXPECT_GE(summary.divergence->maximum, 0);
  EXPECT_EQ(summary.divergence->same_top_share, 1.0);
}

std::vector<Example> random_documents(SplitMix64& random, size_t count) {
  std::vector<Example> documents;
  for (size_t d = 0; d < count; ++d) {
    Example document;
    const uint64_t size = 2 + random.below(40);
    for (uint64_t i = 0; i < size; ++i) {
      document.tokens.push_back(static_cast<int32_t>(random.below(3)));
      document.trained.push_back(static_cast<uint8_t>(i + 1 == size || random.below(3) > 0));
    }
    documents.push_back(std::move(document));
  }
  return documents;
}

// Chunk sizes, the byte limit, the thread count and windows (the table model sees one token back, but for BOS) decide
// how the work is split, not what comes out.
TEST(TextMetrics, TheSplitOfTheWorkChangesNothing) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  SplitMix64 random(seed);
  const std::vector<Example> documents = random_documents(random, 20);
  TableModel model(kModel);
  TableModel reference(kReference, 1.0, 100);
  const TextMeasures whole = measure_text(model, &reference, documents, {});
  for (const int64_t rows : {1, 2, 7}) {
    TableModel in_chunks(kModel, 0, rows + 1);
    TextOptions options;
    options.reference_bytes = rows * 3 * static_cast<int64_t>(sizeof(float));
    options.threads = static_cast<int>(rows);
    const TextMeasures pieces = measure_text(in_chunks, &reference, documents, options);
    EXPECT_EQ(pieces.token_divergences, whole.token_divergences);
    for (size_t d = 0; d < documents.size(); ++d) {
      EXPECT_EQ(pieces.documents[d].negative_log_likelihood, whole.documents[d].negative_log_likelihood);
      EXPECT_EQ(pieces.documents[d].probability_change_squared, whole.documents[d].probability_change_squared);
    }
  }
}

TEST(TextMetrics, ManyThreadsOnALargeVocabularyGiveTheSameSums) {
  constexpr size_t kVocabulary = 1 << 19;
  std::vector<std::vector<double>> uniform(4, std::vector<double>(kVocabulary, 1.0 / kVocabulary));
  TableModel model(uniform, 0, 8);
  const std::vector<Example> documents{example({0, 1, 2, 3, 0, 1, 2}, {1, 1, 1, 1, 1, 1, 1})};
  TextOptions options;
  options.threads = 3;
  const TextSummary summary = summarize(measure_text(model, &model, documents, options));
  EXPECT_NEAR(summary.mean_negative_log_likelihood, std::log(static_cast<double>(kVocabulary)), 1e-9);
  EXPECT_EQ(summary.divergence->maximum, 0.0);
}

TEST(TextMetrics, ComputesNoRowThatIsNotNeeded) {
  TableModel model(kModel);
  const std::vector<Example> documents{example({0, 1, 2, 0, 1, 2, 0, 1}, {0, 0, 0, 0, 1, 1, 0, 0})};
  measure_text(model, nullptr, documents, {});
  EXPECT_EQ(model.rows_computed, 2);
}

TEST(TextMetrics, LongDocumentsAreMeasuredInWindowsThatBeginWithTheirFirstToken) {
  TableModel model(kModel);
  const std::vector<Example> documents{example({0, 1, 2, 2, 1}, {1, 1, 1, 1, 1})};
  TextOptions options;
  options.max_tokens = 3;
  const TextMeasures measures = measure_text(model, nullptr, documents, options);
  // Windows 0 1 2 and 0 2 1: 1 after 0, 2 after 1, 2 after 0, 1 after 2.
  EXPECT_EQ(measures.documents[0].tokens, 4);
  EXPECT_NEAR(measures.documents[0].negative_log_likelihood, -std::log(0.25 * 0.5 * 0.25 * 0.1), 1e-5);
  EXPECT_EQ(model.calls, 2);
}

TEST(TextMetrics, DocumentsWithoutCountedTokensStayInTheList) {
  TableModel model(kModel);
  const std::vector<Example> documents{example({0}, {1}), example({0, 1}, {1, 0}), example({0, 1}, {0, 1})};
  const TextMeasures measures = measure_text(model, nullptr, documents, {});
  EXPECT_EQ(token_column(measures), (std::vector<double>{0, 0, 1}));
  EXPECT_EQ(summarize(measures).documents, 1);
  EXPECT_THROW(measure_text(model, nullptr, std::span(documents).first(2), {}), Error);
}

TEST(TextMetrics, RefusesWhatCanNotBeMeasured) {
  TableModel model(kModel);
  TableModel smaller({{0.5, 0.5}, {0.5, 0.5}});
  const std::vector<Example> documents{example({0, 1}, {1, 1})};
  EXPECT_THROW(measure_text(model, &smaller, documents, {}), Error);
  const std::vector<Example> beyond{example({0, 3}, {1, 1})};
  EXPECT_THROW(measure_text(model, nullptr, beyond, {}), Error);

  auto broken_table = kModel;
  broken_table[0][2] = std::nan("");
  TableModel broken(broken_table);
  const auto message = [&](LanguageModel& judged, LanguageModel* reference) {
    try {
      measure_text(judged, reference, documents, {});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(message(broken, &model), HasSubstr("the model's logits at position 0 of line 1"));
  EXPECT_THAT(message(model, &broken), HasSubstr("the reference's logits at position 0 of line 1"));
}

}  // namespace
}  // namespace qat
