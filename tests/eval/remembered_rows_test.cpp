#include "eval/remembered_rows.h"

#include <gtest/gtest.h>

#include "eval/table_model.h"
#include "eval/text_metrics.h"

namespace qat {
namespace {

const std::vector<std::vector<double>> kTable{{0.5, 0.25, 0.25}, {0.2, 0.3, 0.5}, {0.1, 0.1, 0.8}};

BatchSequence sequence(std::vector<int32_t> tokens, std::vector<int64_t> wanted) {
  return {std::move(tokens), std::move(wanted), std::nullopt};
}

struct Remembered {
  explicit Remembered(int64_t most_bytes) {
    auto owned = std::make_unique<TableModel>(kTable);
    table = owned.get();
    model = remember_hidden_rows(std::move(owned), most_bytes);
  }
  TableModel* table;
  std::unique_ptr<LanguageModel> model;
};

TEST(RememberedRows, ABatchGoesThroughTheModelOnce) {
  Remembered remembered(1 << 20);
  const std::vector<BatchSequence> batch{sequence({0, 1, 2}, {1, 2}), sequence({2}, {0})};
  const auto rows = remembered.model->hidden_rows(batch);
  EXPECT_EQ(rows, (std::vector<float>{1, 2, 2}));
  EXPECT_EQ(remembered.model->hidden_rows(batch), rows);
  EXPECT_EQ(remembered.table->calls, 1);
}

TEST(RememberedRows, BatchesThatDifferInAnythingAreDifferent) {
  Remembered remembered(1 << 20);
  const std::vector<std::vector<BatchSequence>> batches{
      {sequence({0, 1, 2}, {1})},
      {sequence({0, 1, 2}, {2})},
      {sequence({0, 1, 1}, {1})},
      {sequence({0, 1}, {1}), sequence({2}, {})},
      {sequence({0, 1}, {1}), {{2}, {}, 0}},
      {sequence({0, 1, 2}, {1, 2})},
  };
  for (const auto& batch : batches) remembered.model->hidden_rows(batch);
  EXPECT_EQ(remembered.table->calls, static_cast<int64_t>(batches.size()));
}

TEST(RememberedRows, WhatDoesNotFitIsComputedAgain) {
  Remembered remembered(100);
  const std::vector<BatchSequence> first{sequence({0, 1, 2}, {1})};
  const std::vector<BatchSequence> second{sequence({0, 1, 2, 0}, {1})};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(remembered.model->hidden_rows(first), std::vector<float>{1});
    EXPECT_EQ(remembered.model->hidden_rows(second), std::vector<float>{1});
  }
  EXPECT_EQ(remembered.table->calls, 1 + 3);
}

TEST(RememberedRows, ManyModelsAreMeasuredAgainstOnePass) {
  Example document;
  document.tokens = {0, 1, 2, 2, 1};
  document.trained.assign(5, 1);
  const std::vector<Example> documents{document, document};
  Remembered remembered(1 << 20);
  TableModel plain(kTable);
  for (int model = 0; model < 3; ++model) {
    TableModel other({{0.25, 0.5, 0.25}, {0.1, 0.3, 0.6}, {0.1, 0.1, 0.8}});
    const TextMeasures found = measure_text(other, remembered.model.get(), documents, {});
    const TextMeasures wanted = measure_text(other, &plain, documents, {});
    EXPECT_EQ(found.documents[1].divergence, wanted.documents[1].divergence);
  }
  EXPECT_EQ(remembered.table->calls, 1);
}

}  // namespace
}  // namespace qat
