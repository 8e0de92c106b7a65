// Evaluation and decoding with a KV cache against the logits of transformers' full forward pass.
#include <algorithm>
#include <cmath>
#include <vector>

#include "model/golden_models.h"
#include "model/torch_language_model.h"

namespace qat {
namespace {

using testing::Expected;
using testing::golden_model;

class DecodingGolden : public testing::GoldenTest {};

std::vector<int32_t> tokens_of(const Expected& expected) {
  const at::Tensor tokens = expected["tokens"];
  return {tokens.const_data_ptr<int64_t>(), tokens.const_data_ptr<int64_t>() + tokens.numel()};
}

double difference_of_row(std::span<const float> found, const at::Tensor& logits, int64_t row) {
  EXPECT_EQ(static_cast<int64_t>(found.size()), logits.size(1));
  const float* wanted = logits.const_data_ptr<float>() + row * logits.size(1);
  double largest = 0;
  for (size_t i = 0; i < found.size(); ++i) largest = std::max(largest, std::abs(double{found[i]} - double{wanted[i]}));
  return largest;
}

TEST_P(DecodingGolden, TokenByTokenEqualsTheFullForwardPass) {
  const Expected expected(kind());
  const auto model = golden_model(kind());
  const auto session = make_language_model(*model)->start();
  const auto tokens = tokens_of(expected);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto logits = session->append({&tokens[i], 1});
    EXPECT_LE(difference_of_row(logits, expected["logits"], static_cast<int64_t>(i)), 1e-4) << "position " << i;
  }
}

TEST_P(DecodingGolden, AppendingSeveralTokensEqualsTheFullForwardPass) {
  const Expected expected(kind());
  const auto model = golden_model(kind());
  const auto tokens = tokens_of(expected);
  // Shorter than, equal to and longer than the window of 16; a prompt followed by single tokens.
  for (const std::vector<size_t>& lengths : {std::vector<size_t>{3, 16, 29}, {20, 1, 1, 5, 21}, {48}, {1, 47}}) {
    const auto session = make_language_model(*model)->start();
    size_t end = 0;
    for (const size_t length : lengths) {
      const auto logits = session->append({&tokens[end], length});
      end += length;
      EXPECT_LE(difference_of_row(logits, expected["logits"], static_cast<int64_t>(end) - 1), 1e-4) << "after " << end;
    }
  }
}

TEST_P(DecodingGolden, EvaluationGivesEveryRowFromTheFirstPosition) {
  const Expected expected(kind());
  const auto model = golden_model(kind());
  const auto language_model = make_language_model(*model);
  const at::Tensor wanted = expected["logits"];
  EXPECT_EQ(language_model->vocabulary_size(), wanted.size(1));
  int64_t next = 17;
  language_model->evaluate(tokens_of(expected), next, [&](int64_t first, std::span<const float> logits) {
    ASSERT_EQ(first, next);
    const auto columns = static_cast<size_t>(wanted.size(1));
    for (size_t row = 0; row < logits.size() / columns; ++row, ++next) {
      EXPECT_LE(difference_of_row(logits.subspan(row * columns, columns), wanted, next), 1e-4);
    }
  });
  EXPECT_EQ(next, wanted.size(0));
}

// Whole sequences, a long beginning (longer than the window of 16) with two ways to go on, and another sequence between
// them: each row is that of reading its sequence alone.
TEST_P(DecodingGolden, SequencesOfABatchThatContinueOthersEqualTheFullForwardPass) {
  const Expected expected(kind());
  const auto model = golden_model(kind());
  const auto language_model = make_language_model(*model);
  const auto tokens = tokens_of(expected);
  const auto part = [&](size_t begin, size_t end) {
    return std::vector<int32_t>(tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                                tokens.begin() + static_cast<std::ptrdiff_t>(end));
  };
  std::vector<int32_t> other = part(29, 34);
  other.front() = tokens[0] == 5 ? 6 : 5;  // not what stands there
  const std::vector<BatchSequence> batch{{part(0, 29), {3, 28}, std::nullopt},
                                         {part(0, 3), {2}, std::nullopt},
                                         {other, {0, 4}, 0},
                                         {part(29, 48), {0, 11, 18}, 0},
                                         {part(3, 5), {}, 1},
                                         {part(3, 5), {1}, 1}};
  const auto rows = language_model->hidden_rows(batch);
  const auto width = static_cast<size_t>(language_model->hidden_size());
  ASSERT_EQ(rows.size(), 9 * width);
  const std::span<const float> logits = language_model->logits(rows);
  const auto columns = static_cast<size_t>(language_model->vocabulary_size());
  const auto row = [&](size_t i) { return logits.subspan(i * columns, columns); };
  const std::vector<int64_t> places{3, 28, 2, -1, -1, 29, 40, 47, 4};
  for (size_t i = 0; i < places.size(); ++i) {
    if (places[i] < 0) continue;
    EXPECT_LE(difference_of_row(row(i), expected["logits"], places[i]), 1e-4) << "row " << i;
  }
  std::vector<int32_t> alone = part(0, 29);
  alone.insert(alone.end(), other.begin(), other.end());
  language_model->evaluate(alone, 33, [&](int64_t, std::span<const float> wanted) {
    for (size_t i = 0; i < columns; ++i) EXPECT_NEAR(row(4)[i], wanted[i], 1e-4);
  });
}

INSTANTIATE_TEST_SUITE_P(Kinds, DecodingGolden, ::testing::ValuesIn(testing::kKinds), testing::name_of_kind);

}  // namespace
}  // namespace qat
