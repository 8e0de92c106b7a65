// Which scheme each part of a model gets, so that it fits a size and loses least.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace qat {

// A scheme that a part could have: what the part then takes, and the KL divergence that it alone causes.
struct PartChoice {
  int64_t bytes = 0;
  double divergence = 0;
};

// The index of a choice for each part: of all combinations with at most `budget` bytes together, one with the least sum
// of divergences, and of those the smallest. That the sum says what the parts do together is an approximation.
// Nothing if even the smallest choices do not fit. Exact: only combinations are dropped that another one of the same
// parts beats in both respects.
std::optional<std::vector<size_t>> choose_within(std::span<const std::vector<PartChoice>> parts, int64_t budget);

}  // namespace qat
