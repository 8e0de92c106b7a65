// Comparisons of simulated models whose true difference is known: how often a verdict is right, and how often an
// interval holds the truth. The seeds are fixed, so the shares are too.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/random.h"
#include "eval/verdict.h"

namespace qat {
namespace {

// Under the sanitizers a short version, whose shares scatter by 2 % instead of 0.35 %.
#ifdef __SANITIZE_ADDRESS__
constexpr int kTrials = 120;
constexpr double kSlack = 0.06;
#else
constexpr int kTrials = 4000;
constexpr double kSlack = 0;
#endif

void expect_coverage(int covered) {
  const double share = static_cast<double>(covered) / kTrials;
  EXPECT_GE(share, 0.93 - kSlack);
  EXPECT_LE(share, 0.97 + kSlack);
}

bool holds(const Interval& interval, double truth) { return !interval.excludes(truth); }

Comparison larger_is_better(PairedDifference difference) {
  return {std::move(difference), false, [](double size) { return std::to_string(size); }};
}

// Of the items, 12 % are answered correctly by one model only: `gain` more of them by the first.
PairedDifference simulated_answers(SplitMix64& random, int64_t items, double gain) {
  constexpr double kDiscordant = 0.12;
  std::vector<bool> first;
  std::vector<bool> second;
  for (int64_t i = 0; i < items; ++i) {
    const double draw = random.uniform();
    const bool only_first = draw < (kDiscordant + gain) / 2;
    const bool only_second = !only_first && draw < kDiscordant;
    const bool both = draw > 0.5;
    first.push_back(only_first || both);
    second.push_back(only_second || both);
  }
  return answer_difference(first, second);
}

// Documents of 20 to 219 tokens, hard and easy ones. Where the first model is worse by `loss` nats per token on
// average, it is so by another amount in each document.
struct SimulatedDocuments {
  std::vector<double> first;
  std::vector<double> second;
  std::vector<double> tokens;

  SimulatedDocuments(SplitMix64& random, size_t count, double loss) {
    for (size_t i = 0; i < count; ++i) {
      const auto length = static_cast<double>(20 + random.below(200));
      const double difficulty = 3 * random.uniform();
      const double noise = std::sqrt(-2 * std::log(1 - random.uniform())) * std::cos(2 * M_PI * random.uniform());
      tokens.push_back(length);
      second.push_back(length * difficulty);
      first.push_back(second.back() + length * (loss + 0.1 * noise));
    }
  }
};

TEST(ComparisonSimulation, AZeroEffectIsCalledNoDifference) {
  SplitMix64 random(1);
  int silent = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    const std::vector<Comparison> family{larger_is_better(simulated_answers(random, 3000, 0))};
    silent += judge(family)[0].finding == Finding::NoDifferenceShown;
  }
  EXPECT_GE(silent, (0.94 - kSlack) * kTrials);
}

TEST(ComparisonSimulation, TwoPointsInThreeThousandItemsAreFound) {
  SplitMix64 random(2);
  int found = 0;
  int wrong = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    const std::vector<Comparison> family{larger_is_better(simulated_answers(random, 3000, 0.02))};
    const Finding finding = judge(family)[0].finding;
    found += finding == Finding::Better;
    wrong += finding == Finding::Worse;
  }
  EXPECT_GE(found, (0.80 - kSlack) * kTrials);
  EXPECT_EQ(wrong, 0);
}

// Four models that are all as good as the baseline: without the correction one in seven families would claim a
// difference.
TEST(ComparisonSimulation, AFamilyOfZeroEffectsStaysSilentAsAWhole) {
  SplitMix64 random(3);
  int silent = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<Comparison> family;
    for (int model = 0; model < 4; ++model) family.push_back(larger_is_better(simulated_answers(random, 1000, 0)));
    const auto verdicts = judge(family);
    silent += std::ranges::all_of(verdicts, [](const Verdict& v) { return v.finding == Finding::NoDifferenceShown; });
  }
  EXPECT_GE(silent, (0.94 - kSlack) * kTrials);
}

TEST(ComparisonSimulation, IntervalsOfAccuracyHoldTheTruth) {
  SplitMix64 random(4);
  int difference = 0;
  int small_difference = 0;
  int share = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    difference += holds(simulated_answers(random, 3000, 0.02).estimate.interval, 0.02);
    small_difference += holds(simulated_answers(random, 150, 0.02).estimate.interval, 0.02);
    int64_t correct = 0;
    for (int item = 0; item < 200; ++item) correct += random.uniform() < 0.63 ? 1 : 0;
    share += holds(wilson_interval(correct, 200), 0.63);
  }
  expect_coverage(difference);
  expect_coverage(small_difference);
  expect_coverage(share);
}

TEST(ComparisonSimulation, IntervalsOverDocumentsHoldTheTruth) {
  SplitMix64 random(5);
  int many = 0;
  int fewest = 0;
  int found = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    const BootstrapOptions options{.resamples = 600, .seed = static_cast<uint64_t>(trial)};
    const SimulatedDocuments large(random, 120, 0.04);
    const PairedDifference of_many = document_difference(large.first, large.second, large.tokens, options);
    many += holds(of_many.estimate.interval, 0.04);
    found += of_many.p_value < 0.05;
    const SimulatedDocuments small(random, kFewestDocuments, 0.04);
    fewest += holds(document_difference(small.first, small.second, small.tokens, options).estimate.interval, 0.04);
  }
  expect_coverage(many);
  expect_coverage(fewest);
  // The true mean is 4.2 standard errors from 0 (0.1 / sqrt(120), a quarter more for documents of unequal length).
  EXPECT_GE(found, (0.9 - kSlack) * kTrials);
}

// The first model has repaired 60 % of the damage of 0.5 nats, with noise of its own in every document.
TEST(ComparisonSimulation, IntervalsOfRecoveryHoldTheTruth) {
  SplitMix64 random(6);
  int covered = 0;
  int given = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    const SimulatedDocuments damaged(random, 80, 0.5);
    std::vector<double> repaired;
    for (size_t i = 0; i < damaged.tokens.size(); ++i) {
      repaired.push_back(damaged.second[i] + damaged.tokens[i] * (0.2 + 0.2 * (random.uniform() - 0.5)));
    }
    const Recovery recovery = recovery_fraction(damaged.first, repaired, damaged.second, damaged.tokens,
                                                {.resamples = 600, .seed = static_cast<uint64_t>(trial)});
    given += recovery.fraction.has_value();
    covered += recovery.fraction && holds(recovery.fraction->interval, 0.6);
  }
  EXPECT_EQ(given, kTrials);
  expect_coverage(covered);
}

// Where nothing was lost, at most one comparison in forty speaks of a recovered part at all.
TEST(ComparisonSimulation, NoRecoveryOfWhatWasNotLost) {
  SplitMix64 random(7);
  int given = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    const SimulatedDocuments equal(random, 80, 0);
    given += recovery_fraction(equal.first, equal.second, equal.second, equal.tokens,
                               {.resamples = 300, .seed = static_cast<uint64_t>(trial)})
                 .fraction.has_value();
  }
  EXPECT_LE(given, (0.035 + kSlack) * kTrials);
}

}  // namespace
}  // namespace qat
