// What is checked before the first step, so that a run does not fail hours later.
#pragma once

#include "trainers/base_model.h"
#include "trainers/optimizer.h"
#include "trainers/run_folder.h"
#include "trainers/train_config.h"
#include "trainers/train_state.h"

namespace qat {

// Throws Error (usage) if rows are longer than the model's positions.
void check_lengths(const TrainConfig& config, const Gemma4Config& model);

// Throws Error if the disk of the run folder has no room for states and checkpoints.
void check_disk_space(const TrainConfig& config, const RunFolder& folder, const BaseModel& base,
                      const Optimizer& optimizer);

// Throws Error (usage) listing the fields in which `config` differs from the one that wrote the state.
void check_same_config(const TrainConfig& config, const TrainState& state);

}  // namespace qat
