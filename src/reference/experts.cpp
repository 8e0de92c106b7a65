#include "reference/experts.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace qat {

std::vector<ExpertChoice> choose_experts(std::span<const float> router_logits, int64_t count) {
  const float largest = *std::max_element(router_logits.begin(), router_logits.end());
  std::vector<float> probabilities;
  double total = 0;
  for (const float logit : router_logits) {
    probabilities.push_back(std::exp(logit - largest));
    total += static_cast<double>(probabilities.back());
  }
  const auto inverse = static_cast<float>(1.0 / total);
  for (float& probability : probabilities) probability *= inverse;

  std::vector<int64_t> order(probabilities.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return probabilities[static_cast<size_t>(a)] > probabilities[static_cast<size_t>(b)];
  });
  order.resize(static_cast<size_t>(count));
  double chosen_sum = 0;
  for (const int64_t expert : order) chosen_sum += static_cast<double>(probabilities[static_cast<size_t>(expert)]);
  const float divisor = std::max(static_cast<float>(chosen_sum), 0x1p-14f);

  std::vector<ExpertChoice> choices;
  for (const int64_t expert : order) choices.push_back({expert, probabilities[static_cast<size_t>(expert)] / divisor});
  return choices;
}

}  // namespace qat
