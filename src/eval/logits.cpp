#include "eval/logits.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "eval/row_kernels.h"

namespace qat {

double log_sum_exp(std::span<const float> logits) {
  QAT_CHECK(!logits.empty());
  const double largest = kernels::largest_logit(logits);
  if (!std::isfinite(largest)) return std::numeric_limits<double>::quiet_NaN();
  return largest + std::log(kernels::sum_of_exponentials(logits, largest));
}

int32_t greedy_token(std::span<const float> logits) {
  QAT_CHECK(!logits.empty());
  const float largest = kernels::largest_logit(logits);
  const auto found = std::ranges::find(logits, largest);
  return found == logits.end() ? 0 : static_cast<int32_t>(found - logits.begin());
}

std::vector<std::pair<int32_t, float>> top_log_probabilities(std::span<const float> logits, int64_t count) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto kept = static_cast<size_t>(std::clamp<int64_t>(count, 0, static_cast<int64_t>(ids.size())));
  const auto more_likely = [&](int32_t a, int32_t b) {
    const float logit_a = logits[static_cast<size_t>(a)];
    const float logit_b = logits[static_cast<size_t>(b)];
    return logit_a != logit_b ? logit_a > logit_b : a < b;
  };
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(kept), ids.end(), more_likely);

  const double normalisation = kept > 0 ? log_sum_exp(logits) : 0.0;
  std::vector<std::pair<int32_t, float>> top;
  top.reserve(kept);
  for (size_t i = 0; i < kept; ++i) {
    const double logit = logits[static_cast<size_t>(ids[i])];
    top.emplace_back(ids[i], static_cast<float>(logit - normalisation));
  }
  return top;
}

}  // namespace qat
