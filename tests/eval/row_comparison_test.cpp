// Against the rule itself: scalar sums in double.
#include "eval/row_comparison.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/random.h"
#include "eval/logits.h"
#include "support/fresh_seed.h"

namespace qat {
namespace {

using testing::fresh_seed;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct RowSums {
  double log_sum_exp = 0;
  double mean_difference = 0;
};

RowSums row_sums(const std::vector<float>& row, const std::vector<float>& other) {
  const double largest = *std::max_element(row.begin(), row.end());
  double sum = 0;
  double weighted = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    const double probability = std::exp(static_cast<double>(row[i]) - largest);
    sum += probability;
    if (probability > 0) weighted += probability * (static_cast<double>(row[i]) - static_cast<double>(other[i]));
  }
  return {largest + std::log(sum), weighted / sum};
}

void expect_the_rule(const std::vector<float>& logits, const std::vector<float>& reference, int32_t correct) {
  const TokenMeasures found = measure_row(logits, reference, correct);
  const RowSums own = row_sums(logits, reference);
  const RowSums other = row_sums(reference, logits);
  const auto target = static_cast<size_t>(correct);
  EXPECT_NEAR(found.negative_log_likelihood, own.log_sum_exp - static_cast<double>(logits[target]), 1e-11);
  EXPECT_NEAR(found.reference_negative_log_likelihood, other.log_sum_exp - static_cast<double>(reference[target]),
              1e-11);
  EXPECT_NEAR(found.divergence, std::max(0.0, other.mean_difference - other.log_sum_exp + own.log_sum_exp), 1e-11);
  EXPECT_NEAR(found.reverse_divergence, std::max(0.0, own.mean_difference - own.log_sum_exp + other.log_sum_exp),
              1e-11);
  EXPECT_EQ(found.same_top, std::max_element(logits.begin(), logits.end()) - logits.begin() ==
                                std::max_element(reference.begin(), reference.end()) - reference.begin());
  EXPECT_NEAR(log_sum_exp(logits), own.log_sum_exp, 1e-11);
  EXPECT_EQ(measure_row(logits, {}, correct).negative_log_likelihood,
            log_sum_exp(logits) - static_cast<double>(logits[target]));
}

// Every length around the vectors', rows near each other and far from each other, narrow and wide.
TEST(RowComparison, IsTheScalarRule) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  SplitMix64 random(seed);
  for (size_t size = 1; size < 80; ++size) {
    for (const float spread : {0.01f, 3.0f, 200.0f}) {
      for (const float distance : {0.0f, 1e-3f, 0.5f, 30.0f}) {
        std::vector<float> logits;
        std::vector<float> reference;
        for (size_t i = 0; i < size; ++i) {
          logits.push_back(spread * static_cast<float>(random.uniform() - 0.5));
          reference.push_back(logits.back() + distance * static_cast<float>(random.uniform() - 0.5));
        }
        expect_the_rule(logits, reference, static_cast<int32_t>(random.below(size)));
      }
    }
  }
}

TEST(RowComparison, EqualRowsAreAtDistanceZero) {
  SplitMix64 random(7);
  std::vector<float> row;
  for (int i = 0; i < 1000; ++i) row.push_back(static_cast<float>(20 * random.uniform()));
  const TokenMeasures found = measure_row(row, row, 3);
  EXPECT_EQ(found.divergence, 0.0);
  EXPECT_EQ(found.reverse_divergence, 0.0);
  EXPECT_TRUE(found.same_top);
}

// What a model rules out adds nothing where both do, and makes the distance infinite where only one does.
TEST(RowComparison, ImpossibleTokensOnEveryPlaceOfAVector) {
  for (size_t place = 0; place < 37; ++place) {
    std::vector<float> logits(37, 1.0f);
    std::vector<float> reference(37, 1.0f);
    logits[(place + 1) % 37] = 2.0f;
    logits[place] = reference[place] = -kInfinity;
    expect_the_rule(logits, reference, static_cast<int32_t>((place + 1) % 37));
    logits[place] = 0.5f;
    const TokenMeasures found = measure_row(logits, reference, static_cast<int32_t>((place + 1) % 37));
    EXPECT_TRUE(std::isfinite(found.divergence));
    EXPECT_EQ(found.reverse_divergence, kInfinity);
  }
}

TEST(RowComparison, NothingFiniteComesOfWhatIsNot) {
  for (const float broken : {kNaN, kInfinity}) {
    for (size_t place = 0; place < 37; ++place) {
      std::vector<float> row(37, 1.0f);
      const std::vector<float> sound = row;
      row[place] = broken;
      EXPECT_FALSE(std::isfinite(log_sum_exp(row)));
      EXPECT_FALSE(std::isfinite(measure_row(row, sound, 5).negative_log_likelihood));
      EXPECT_FALSE(std::isfinite(measure_row(sound, row, 5).reference_negative_log_likelihood));
    }
  }
  EXPECT_FALSE(std::isfinite(log_sum_exp(std::vector<float>(9, -kInfinity))));
}

TEST(Logits, TheFirstOfEqualLogitsIsTheGreedyToken) {
  std::vector<float> row(50, -1.0f);
  row[31] = row[17] = 2.0f;
  EXPECT_EQ(greedy_token(row), 17);
  row[3] = kNaN;
  EXPECT_EQ(greedy_token(row), 0);
}

}  // namespace
}  // namespace qat
