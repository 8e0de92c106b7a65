#pragma once

#include <cstdint>

#include "gemma4/quant_plan.h"
#include "gemma4/weight_table.h"
#include "quant/scheme.h"

namespace qat {

// What a weight takes under a plan, with the fp32 scales of its rows.
inline int64_t stored_bytes(const WeightSpec& weight, const WeightPlan& plan) {
  const QuantScheme& chosen = scheme(plan.scheme);
  const int64_t scales = !chosen.has_row_scales() ? 0 : plan.one_scale_per_row ? weight.rows() : weight.row_scales();
  return weight.rows() * chosen.row_bytes(weight.columns()) + scales * static_cast<int64_t>(sizeof(float));
}

}  // namespace qat
