#include "eval/plan_search.h"

#include <algorithm>

namespace qat {

namespace {

struct Combination {
  int64_t bytes = 0;
  double divergence = 0;
  std::vector<size_t> choices;
};

// Those that no other one beats in bytes and divergence, by bytes.
std::vector<Combination> best_of(std::vector<Combination> all) {
  std::sort(all.begin(), all.end(), [](const Combination& a, const Combination& b) {
    return a.bytes != b.bytes ? a.bytes < b.bytes : a.divergence < b.divergence;
  });
  std::vector<Combination> kept;
  for (Combination& candidate : all) {
    if (kept.empty() || candidate.divergence < kept.back().divergence) kept.push_back(std::move(candidate));
  }
  return kept;
}

}  // namespace

std::optional<std::vector<size_t>> choose_within(std::span<const std::vector<PartChoice>> parts, int64_t budget) {
  std::vector<Combination> combinations{{}};
  for (const std::vector<PartChoice>& part : parts) {
    std::vector<Combination> longer;
    for (const Combination& combination : combinations) {
      for (size_t choice = 0; choice < part.size(); ++choice) {
        const int64_t bytes = combination.bytes + part[choice].bytes;
        if (bytes > budget) continue;
        longer.push_back({bytes, combination.divergence + part[choice].divergence, combination.choices});
        longer.back().choices.push_back(choice);
      }
    }
    combinations = best_of(std::move(longer));
  }
  if (combinations.empty()) return std::nullopt;
  return combinations.back().choices;
}

}  // namespace qat
