// `gemma-qat cache-teacher`: from a configuration to a file of its teacher's states.
#pragma once

#include "trainers/train_config.h"

namespace qat {

// Writes distillation.cache for the configuration's training data, and returns the exit code: 0, or 130 after Ctrl-C.
// Only a complete file appears; one that is there already is an Error (usage) unless `replace`.
// The teacher runs over the rows of the run's first epoch, joined as in training: there its states are, bit for bit,
// those that training would compute beside the model. In later epochs documents stand in other rows, whose products may
// be rounded otherwise in the last bit.
int cache_teacher(TrainConfig config, bool replace);

}  // namespace qat
