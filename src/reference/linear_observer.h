// Watches the linears of a forward pass.
#pragma once

#include <string_view>

#include "reference/matrix.h"

namespace qat {

class LinearObserver {
 public:
  virtual ~LinearObserver() = default;
  // `input` as it came, before any static quantization; `output` as it goes on, after it. Rows are tokens. `weight` is
  // the name in WeightTable. Called for every matrix of the layers and for per_layer_model_projection, not for experts
  // and the head.
  virtual void computed(std::string_view weight, const Matrix& input, const Matrix& output) = 0;
};

}  // namespace qat
