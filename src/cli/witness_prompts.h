// Prompts whose logits the witness of a checkpoint keeps that no data made.
#pragma once

#include <cstdint>
#include <vector>

#include "gemma4/model_folder.h"

namespace qat {

// Any text does, as long as it is not the same token again and again.
std::vector<std::vector<int32_t>> witness_prompts(const ModelFolder& folder);

}  // namespace qat
