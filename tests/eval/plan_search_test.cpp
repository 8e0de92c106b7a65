#include "eval/plan_search.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "support/fresh_seed.h"

namespace qat {
namespace {

using Parts = std::vector<std::vector<PartChoice>>;

struct Total {
  int64_t bytes = 0;
  double divergence = 0;
};

Total total_of(const Parts& parts, const std::vector<size_t>& choices) {
  Total total;
  for (size_t part = 0; part < parts.size(); ++part) {
    total.bytes += parts[part][choices[part]].bytes;
    total.divergence += parts[part][choices[part]].divergence;
  }
  return total;
}

TEST(PlanSearch, SpendsTheBudgetWhereItHelpsMost) {
  const Parts parts{{{10, 0.9}, {20, 0.1}}, {{100, 0.5}, {200, 0.4}}};
  EXPECT_EQ(choose_within(parts, 120), (std::vector<size_t>{1, 0}));
  EXPECT_EQ(choose_within(parts, 110), (std::vector<size_t>{0, 0}));
  EXPECT_EQ(choose_within(parts, 1000), (std::vector<size_t>{1, 1}));
}

TEST(PlanSearch, SaysIfNothingFits) { EXPECT_EQ(choose_within(Parts{{{10, 0.9}}, {{100, 0.5}}}, 109), std::nullopt); }

TEST(PlanSearch, TakesTheSmallerOfEqualOnes) {
  EXPECT_EQ(choose_within(Parts{{{20, 0.5}, {10, 0.5}}}, 100), (std::vector<size_t>{1}));
}

TEST(PlanSearch, EqualsTheTrialOfAllCombinations) {
  const uint64_t seed = testing::fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int trial = 0; trial < 200; ++trial) {
    Parts parts(1 + random() % 5);
    size_t combinations = 1;
    for (auto& part : parts) {
      part.resize(1 + random() % 4);
      combinations *= part.size();
      for (PartChoice& choice : part) {
        // Sixteenths add up exactly, in any order.
        choice = {static_cast<int64_t>(random() % 50), static_cast<double>(random() % 50) / 16};
      }
    }
    const auto budget = static_cast<int64_t>(random() % 150);
    std::optional<Total> best;
    for (size_t number = 0; number < combinations; ++number) {
      std::vector<size_t> choices;
      for (size_t rest = number; const auto& part : parts) {
        choices.push_back(rest % part.size());
        rest /= part.size();
      }
      const Total total = total_of(parts, choices);
      if (total.bytes > budget) continue;
      const bool is_better =
          !best || std::pair(total.divergence, total.bytes) < std::pair(best->divergence, best->bytes);
      if (is_better) best = total;
    }
    const auto found = choose_within(parts, budget);
    ASSERT_EQ(found.has_value(), best.has_value());
    if (!found) continue;
    const Total total = total_of(parts, *found);
    EXPECT_EQ(total.divergence, best->divergence);
    EXPECT_EQ(total.bytes, best->bytes);
  }
}

}  // namespace
}  // namespace qat
