// What "auto", 0 and the name of a device stand for on this machine.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "trainers/train_config.h"

namespace qat {

// What is wrong with config.device as a name, or else with settings that only kernels of the CPU compute; a line each.
std::vector<std::string> device_problems(const TrainConfig& config);

// The device of each of `local_size` processes on this machine: named without a number it is the one whose number is
// the process's, cuda:LOCAL_RANK.
void choose_own_device(TrainConfig& config, int64_t local_rank, int64_t local_size);

// Spells dtype and threads out, and sets the threads: another machine must not resume with other values unnoticed.
// Throws as compute_device().
void resolve_automatic_values(TrainConfig& config);

// Of the forward pass, after resolve_automatic_values().
at::ScalarType compute_type(const TrainConfig& config);

// The device that config.device names. Throws Error (usage) if this LibTorch does not know it or sees too few of its
// kind.
at::Device compute_device(const TrainConfig& config);

}  // namespace qat
