// `gemma-qat train`: from a configuration to a run folder.
#pragma once

#include "trainers/distributed.h"
#include "trainers/train_config.h"

namespace qat {

// Trains, and returns the exit code: 0, or 130 after Ctrl-C (the step is finished and saved). Throws Error for what the
// configuration or the system makes impossible; everything that can be is checked before the first step.
// In a group all processes call it with equal arguments; only the first one writes the run folder.
// With `resume` it continues the run in config.out from its last save (from the start if there was none).
int run_training(TrainConfig config, bool resume, ProcessGroup& group);

}  // namespace qat
