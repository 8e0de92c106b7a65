// The difference between two models that were measured on the same documents or items, with its interval and p-value.
#pragma once

#include <span>
#include <vector>

#include "eval/statistics.h"

namespace qat {

struct PairedDifference {
  Estimate estimate;      // first - second, with its 95 % interval
  double p_value = 1;     // two-sided, of "there is no difference"
  int64_t samples = 0;    // documents or items that were measured
  bool judgeable = true;  // false below kFewestDocuments: the p-value is then 1
};

// Of a mean per token: sum(first) / sum(weights) - sum(second) / sum(weights), resampled over documents. The p-value is
// twice the share of resamples on the other side of 0, both counted with one more (Davison and Hinkley 1997, 4.4).
// Throws Error as bootstrap() does.
PairedDifference document_difference(std::span<const double> first, std::span<const double> second,
                                     std::span<const double> weights, const BootstrapOptions& options);

// Of the shares of correct answers. The p-value is McNemar's exact one; the interval is Wald's with half an item added
// to each of the four outcomes (Agresti and Min 2005), which keeps its coverage where few answers differ.
PairedDifference answer_difference(const std::vector<bool>& first_correct, const std::vector<bool>& second_correct);

}  // namespace qat
