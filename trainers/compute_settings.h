// What "auto" and 0 stand for on this machine.
#pragma once

#include <ATen/core/Tensor.h>

#include "trainers/train_config.h"

namespace qat {

// Spells dtype and threads out, and sets the threads: another machine must not resume with other values unnoticed.
void resolve_automatic_values(TrainConfig& config);

// Of the forward pass, after resolve_automatic_values().
at::ScalarType compute_type(const TrainConfig& config);

}  // namespace qat
