// Watches the linears of a forward pass.
#pragma once

#include <string_view>

#include "reference/matrix.h"

namespace qat {

// Called for every matrix of the layers and for per_layer_model_projection, not for experts and the head. Rows are
// tokens; `weight` is the name in WeightTable.
class LinearObserver {
 public:
  virtual ~LinearObserver() = default;
  // The input before any static quantization; may be replaced.
  virtual void entering(std::string_view /*weight*/, Matrix& /*input*/) {}
  // `input` as it came (or was replaced), before any static quantization; `output` as it goes on, after it; may be
  // replaced.
  virtual void computed(std::string_view weight, const Matrix& input, Matrix& output) = 0;
};

}  // namespace qat
