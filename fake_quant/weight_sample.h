// A few values of a quantized weight, the same ones every time: what they lose tells the quantizer's error, and which
// of their codes move from one moment to another tells oscillation (qat_methods.md 3.4).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "fake_quant/quantization_statistics.h"

namespace qat {

struct WeightSample {
  QuantizationStatistics statistics;
  std::vector<int8_t> codes;
};

// Indices, ascending, int64, of the groups of `width` values among `groups` that are looked at: one at random in each
// of as many equal parts as make 2^14 values, or all of them. Follows from the two numbers alone.
at::Tensor sampled_groups(int64_t groups, int64_t width);

}  // namespace qat
