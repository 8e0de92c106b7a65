#include "reference/experts.h"

#include <algorithm>
#include <numeric>

namespace qat {

std::vector<ExpertChoice> choose_experts(const Arithmetic& arithmetic, std::span<const float> router_logits,
                                         int64_t count) {
  std::vector<float> probabilities(router_logits.begin(), router_logits.end());
  const float largest = *std::max_element(probabilities.begin(), probabilities.end());
  const auto inverse = static_cast<float>(1.0 / arithmetic.exponentials(probabilities, largest));
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
