// A weight in pieces of whole rows, so that memory stays bounded whatever its size.
#pragma once

#include <algorithm>
#include <cstdint>

#include "gemma4/weight_table.h"

namespace qat {

// Calls visit(first row, rows) for pieces of at most `values` values, or of one row where that has more.
template <class Visit>
void for_row_pieces(const WeightSpec& weight, int64_t values, const Visit& visit) {
  const int64_t piece = std::clamp<int64_t>(values / weight.columns(), 1, weight.rows());
  for (int64_t first = 0; first < weight.rows(); first += piece) visit(first, std::min(piece, weight.rows() - first));
}

}  // namespace qat
