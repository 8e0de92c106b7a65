// What is checked before the first step, so that a run does not fail hours later.
#pragma once

#include "trainers/base_model.h"
#include "trainers/distributed.h"
#include "trainers/optimizer.h"
#include "trainers/run_folder.h"
#include "trainers/sharded_weights.h"
#include "trainers/train_config.h"
#include "trainers/train_state.h"
#include "trainers/training_data.h"

namespace qat {

// Throws Error (usage) if rows are longer than the model's positions.
void check_lengths(const TrainConfig& config, const Gemma4Config& model);

// Throws Error (usage) if the processes cannot share the passes of a step alike, and Error if the data fill fewer rows
// than they take at a time.
void check_group(const TrainConfig& config, const TrainingData& data, const ProcessGroup& group);

// Throws Error (usage) on a process whose configuration is not that of the first one.
void check_same_settings(const TrainConfig& config, ProcessGroup& group);

// The same of data and weights.
void check_same_start(const TrainingData& data, const std::vector<TrainedWeight>& weights,
                      const ShardedWeights& sharded, ProcessGroup& group);

// Of the bits of BF16 or fp32 numbers, in any order: the same on every machine.
int64_t sum_of_bits(const at::Tensor& values);

// Throws Error if the disk of the run folder has no room for states and checkpoints.
void check_disk_space(const TrainConfig& config, const RunFolder& folder, const BaseModel& base,
                      const Optimizer& optimizer);

// Throws Error (usage) listing the fields in which `config` differs from the one that wrote the state.
void check_same_config(const TrainConfig& config, const TrainState& state);

}  // namespace qat
