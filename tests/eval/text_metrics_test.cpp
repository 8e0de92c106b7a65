#include "eval/text_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "core/error.h"
#include "core/random.h"
#include "data/small_tokenizer.h"
#include "eval/table_model.h"
#include "eval/text_summary.h"
#include "eval/text_units.h"

namespace qat {
namespace {

using ::testing::HasSubstr;
using testing::small_tokenizer;

constexpr double kEachSixth[] = {0, 0.17, 0.33, 0.5, 0.67, 0.83, 1};

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
  ASSERT_EQ(measures.divergences.count(), 3);
  const TextSummary summary = summarize(measures);
  ASSERT_TRUE(summary.divergence);
  const DistributionSummary& forward = summary.divergence->divergence;
  EXPECT_NEAR(forward.mean, (first + second) / 3, 1e-6);
  EXPECT_NEAR(forward.minimum, 0, 1e-6);
  EXPECT_NEAR(forward.median, second, 1e-6);
  EXPECT_NEAR(forward.maximum, first, 1e-6);
  EXPECT_NEAR(forward.percentile_10, 0.2 * second, 1e-6);
  EXPECT_NEAR(forward.percentile_90, second + 0.8 * (first - second), 1e-6);
  const double reverse_first = divergence(kModel[0], kReference[0]);
  const double reverse_second = divergence(kModel[1], kReference[1]);
  const DistributionSummary& reverse = summary.divergence->reverse_divergence;
  EXPECT_NEAR(reverse.mean, (reverse_first + reverse_second) / 3, 1e-6);
  EXPECT_NEAR(reverse.median, reverse_second, 1e-6);
  EXPECT_NEAR(reverse.maximum, reverse_first, 1e-6);
  EXPECT_NEAR(summary.divergence->same_top_share, 2.0 / 3, 1e-12);
  // Correct tokens 1, 2, 2: the model's probability minus the reference's is 0.25 - 0.5, 0.5 - 0.6, 0.
  const DistributionSummary& change = summary.divergence->probability_change;
  EXPECT_NEAR(change.mean, -0.35 / 3, 1e-6);
  EXPECT_NEAR(change.minimum, -0.25, 1e-6);
  EXPECT_NEAR(change.median, -0.1, 1e-6);
  EXPECT_NEAR(change.maximum, 0, 1e-6);
  EXPECT_NEAR(summary.divergence->rms_probability_change, std::sqrt((0.0625 + 0.01) / 3), 1e-6);
  EXPECT_NEAR(summary.divergence->reference_perplexity, std::pow(0.5 * 0.6 * 0.8, -1.0 / 3), 1e-5);
}

TEST(TextMetrics, AModelAgainstItselfIsAtDistanceZero) {
  TableModel model(kModel);
  TableModel shifted(kModel, 7.0);
  const std::vector<Example> documents{example({0, 1, 2, 0, 1}, {1, 1, 1, 1, 1})};
  const TextSummary summary = summarize(measure_text(model, &shifted, documents, {}));
  EXPECT_LT(summary.divergence->divergence.maximum, 1e-6);
  EXPECT_GE(summary.divergence->divergence.minimum, 0);
  EXPECT_LT(summary.divergence->reverse_divergence.maximum, 1e-6);
  EXPECT_GE(summary.divergence->reverse_divergence.minimum, 0);
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

// The size of batches, the byte limit and the thread count decide how the work is split, not what comes out.
TEST(TextMetrics, TheSplitOfTheWorkChangesNothing) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  SplitMix64 random(seed);
  const std::vector<Example> documents = random_documents(random, 20);
  TableModel model(kModel);
  TableModel reference(kReference, 1.0, 100);
  const TextMeasures whole = measure_text(model, &reference, documents, {});
  for (const int64_t rows : {1, 2, 7}) {
    TextOptions options;
    options.batch_tokens = 30 * rows;
    options.logits_bytes = rows * 3 * static_cast<int64_t>(sizeof(float));
    options.threads = static_cast<int>(rows);
    const TextMeasures pieces = measure_text(model, &reference, documents, options);
    EXPECT_EQ(pieces.divergences.quantiles(kEachSixth), whole.divergences.quantiles(kEachSixth));
    EXPECT_EQ(pieces.probability_changes.quantiles(kEachSixth), whole.probability_changes.quantiles(kEachSixth));
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
  EXPECT_EQ(summary.divergence->divergence.maximum, 0.0);
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
  EXPECT_EQ(model.calls, 1);
}

// Windows 0 1 2, 0 2 2 and 0 2 1, of which those after the first count their last token; and the same with the third
// token not trained.
TEST(TextMetrics, OverlappingWindowsCountEachTokenOnce) {
  TableModel model(kModel);
  const std::vector<Example> documents{example({0, 1, 2, 2, 1}, {1, 1, 1, 1, 1}),
                                       example({0, 1, 2, 2, 1}, {1, 1, 1, 0, 1})};
  TextOptions options;
  options.max_tokens = 3;
  options.stride = 1;
  const TextMeasures measures = measure_text(model, nullptr, documents, options);
  const double after_2[] = {kModel[2][2], kModel[2][1]};
  EXPECT_EQ(measures.documents[0].tokens, 4);
  EXPECT_NEAR(measures.documents[0].negative_log_likelihood,
              -std::log(kModel[0][1] * kModel[1][2] * after_2[0] * after_2[1]), 1e-5);
  EXPECT_EQ(measures.documents[1].tokens, 3);
  EXPECT_NEAR(measures.documents[1].negative_log_likelihood, -std::log(kModel[0][1] * kModel[1][2] * after_2[1]), 1e-5);
}

TEST(TextMetrics, TheLargestStrideIsNoOverlap) {
  TableModel model(kModel);
  const std::vector<Example> documents{example({0, 1, 2, 2, 1, 0, 2, 1}, {1, 1, 1, 0, 1, 1, 1, 1})};
  TextOptions options;
  options.max_tokens = 4;
  const TextMeasures apart = measure_text(model, nullptr, documents, options);
  options.stride = 3;
  const TextMeasures same = measure_text(model, nullptr, documents, options);
  EXPECT_EQ(same.documents[0].tokens, apart.documents[0].tokens);
  EXPECT_EQ(same.documents[0].negative_log_likelihood, apart.documents[0].negative_log_likelihood);
}

TEST(TextMetrics, DocumentsAreReadTogetherAsLongAsTheyFit) {
  TableModel model(kModel);
  const std::vector<Example> documents(5, example({0, 1, 2, 2}, {1, 1, 1, 1}));
  std::vector<int64_t> progress;
  TextOptions options;
  options.batch_tokens = 6;  // the last token of each is not read
  options.on_progress = [&](int64_t done, int64_t total) {
    EXPECT_EQ(total, 5);
    progress.push_back(done);
  };
  const TextMeasures measures = measure_text(model, nullptr, documents, options);
  EXPECT_EQ(model.calls, 3);
  EXPECT_EQ(progress, (std::vector<int64_t>{2, 4, 5}));
  for (const DocumentMeasures& document : measures.documents) {
    EXPECT_EQ(document.negative_log_likelihood, measures.documents[0].negative_log_likelihood);
  }
}

// The comparison of the first model with itself: one pass, one row of logits per position.
TEST(TextMetrics, AModelThatIsItsOwnReferenceIsComputedOnce) {
  TableModel model(kModel);
  const std::vector<Example> documents{example({0, 1, 2, 0, 1}, {1, 1, 1, 1, 1})};
  const TextMeasures measures = measure_text(model, &model, documents, {});
  EXPECT_EQ(model.calls, 1);
  EXPECT_EQ(model.rows_computed, 4);
  EXPECT_EQ(measures.divergences.quantiles(std::vector<double>{1.0})[0], 0.0);
  EXPECT_EQ(measures.documents[0].reference_negative_log_likelihood, measures.documents[0].negative_log_likelihood);
}

TEST(TextMetrics, DocumentsWithoutCountedTokensStayInTheList) {
  TableModel model(kModel);
  const std::vector<Example> documents{example({0}, {1}), example({0, 1}, {1, 0}), example({0, 1}, {0, 1})};
  const TextMeasures measures = measure_text(model, nullptr, documents, {});
  EXPECT_EQ(token_column(measures), (std::vector<double>{0, 0, 1}));
  EXPECT_EQ(summarize(measures).documents, 1);
  EXPECT_THROW(measure_text(model, nullptr, std::span(documents).first(2), {}), Error);
}

// A token that the reference rules out and the model does not: infinitely far in one direction only.
TEST(TextMetrics, AnInfiniteReverseDivergenceIsReported) {
  TableModel model(kModel);
  TableModel reference({{0.5, 0.5, 0}, {0.2, 0.3, 0.5}, {0.1, 0.1, 0.8}});
  const std::vector<Example> documents{example({0, 1, 2}, {0, 1, 1})};
  const TextSummary summary = summarize(measure_text(model, &reference, documents, {}));
  EXPECT_NEAR(summary.divergence->divergence.mean, (0.5 * std::log(2.0)) / 2, 1e-6);
  EXPECT_TRUE(std::isinf(summary.divergence->reverse_divergence.mean));
  EXPECT_TRUE(std::isinf(summary.divergence->reverse_divergence.maximum));
}

TEST(TextMetrics, FilesJoinToWhatOneFileGives) {
  SplitMix64 random(3);
  const std::vector<Example> documents = random_documents(random, 12);
  TableModel model(kModel);
  TableModel reference(kReference);
  const TextMeasures whole = measure_text(model, &reference, documents, {});
  const std::vector<TextMeasures> files{measure_text(model, &reference, std::span(documents).first(5), {}),
                                        measure_text(model, &reference, std::span(documents).subspan(5), {})};
  const TextMeasures both = joined(files);
  EXPECT_EQ(column(both, &DocumentMeasures::reverse_divergence), column(whole, &DocumentMeasures::reverse_divergence));
  EXPECT_EQ(both.divergences.quantiles(kEachSixth), whole.divergences.quantiles(kEachSixth));
  EXPECT_EQ(summarize(both).perplexity, summarize(whole).perplexity);
}

Example text_document(const std::string& text) {
  Example document;
  document.tokens = small_tokenizer().encode(text);
  document.tokens.insert(document.tokens.begin(), small_tokenizer().require_id("<bos>"));
  document.trained.assign(document.tokens.size(), 1);
  return document;
}

TEST(TextUnits, AreThoseOfTheCountedText) {
  const std::string text = "Wie geht es  d\u00fcr\u00e9?\n\u4f60\u597d ";
  Example document = text_document(text);
  EXPECT_EQ(counted_units(small_tokenizer(), document).words, 5);
  EXPECT_EQ(counted_units(small_tokenizer(), document).bytes, static_cast<int64_t>(text.size()));

  document.tokens.push_back(small_tokenizer().require_id("<eos>"));  // its loss counts, but it spells nothing
  document.trained.push_back(1);
  EXPECT_EQ(counted_units(small_tokenizer(), document).bytes, static_cast<int64_t>(text.size()));

  const Example answer = text_document(" and two");
  document.trained.assign(document.trained.size(), 0);
  document.tokens.insert(document.tokens.end(), answer.tokens.begin() + 1, answer.tokens.end());
  document.trained.resize(document.tokens.size(), 1);
  EXPECT_EQ(counted_units(small_tokenizer(), document).words, 2);
  EXPECT_EQ(counted_units(small_tokenizer(), document).bytes, 8);
}

// Every token of the vocabulary is equally likely, so the loss is log(vocabulary) per token.
TEST(TextUnits, GivePerplexitiesByHand) {
  class Uniform : public LanguageModel {
   public:
    int64_t vocabulary_size() const override { return small_tokenizer().vocabulary_size(); }
    void evaluate(std::span<const int32_t>, int64_t, const LogitsSink&) override {}
    int64_t hidden_size() const override { return 1; }
    std::vector<float> hidden_rows(std::span<const BatchSequence> batch) override {
      size_t rows = 0;
      for (const BatchSequence& sequence : batch) rows += sequence.wanted.size();
      return std::vector<float>(rows);
    }
    std::span<const float> logits(std::span<const float> rows) override {
      logits_.assign(rows.size() * static_cast<size_t>(vocabulary_size()), 1.5f);
      return logits_;
    }
    std::unique_ptr<DecodingSession> start() override { return nullptr; }

   private:
    std::vector<float> logits_;
  };
  Uniform model;
  TextOptions options;
  options.tokenizer = &small_tokenizer();
  const std::vector<Example> documents{text_document("one two three"), text_document("four")};
  const TextSummary summary = summarize(measure_text(model, nullptr, documents, options));
  ASSERT_TRUE(summary.units);
  EXPECT_EQ(summary.units->words, 4);
  EXPECT_EQ(summary.units->bytes, 17);
  const double loss =
      static_cast<double>(summary.tokens) * std::log(static_cast<double>(small_tokenizer().vocabulary_size()));
  EXPECT_NEAR(summary.units->bits_per_byte, loss / 17 / std::log(2.0), 1e-9);
  EXPECT_NEAR(std::log(summary.units->word_perplexity), loss / 4, 1e-9);
  EXPECT_NEAR(std::log(summary.units->byte_perplexity), loss / 17, 1e-9);
  EXPECT_FALSE(summarize(measure_text(model, nullptr, documents, {})).units);
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
