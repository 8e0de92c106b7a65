// Objectives that follow a teacher.
#pragma once

#include <memory>

#include "trainers/objective.h"
#include "trainers/teacher.h"

namespace qat {

// The divergence that config.objective names, at the trained tokens, between the teacher's and the model's
// distributions at config.distillation's temperature T:
//   (1 - cross_entropy_share) T^2 divergence + cross_entropy_share (-log p of the data's token, at temperature 1)
// The derivative of softmax(z / T) brings 1/T, the divergence's own size falls with 1/T: T^2 keeps gradients as large
// as at temperature 1 (arXiv 1503.02531, section 2).
std::unique_ptr<Objective> make_distillation(const TrainConfig& config, std::unique_ptr<Teacher> teacher);

}  // namespace qat
