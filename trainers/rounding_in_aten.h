// Stochastic rounding in ATen operations, for devices that stochastic_rounding.h does not run on; the same bits.
#pragma once

#include <ATen/core/Tensor.h>

#include "trainers/stochastic_rounding.h"

namespace qat {

// round_stochastically(value, random.of_master(place)) of fp32 values in their shape, as BF16.
at::Tensor round_stochastically_in_aten(const at::Tensor& values, const ElementRandom& random);

}  // namespace qat
