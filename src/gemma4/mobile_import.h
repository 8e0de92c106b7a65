// A folder of transformers' mobile format as a checkpoint to train on: codes and scales kept exactly, masters placed on
// them.
#pragma once

#include <filesystem>
#include <functional>

#include "gemma4/mobile_folder.h"
#include "gemma4/quant_plan.h"

namespace qat {

// What config.json of an imported checkpoint keeps for the next export: how the folder quantizes other modalities.
inline constexpr const char* kTowerQuantization = "gemma_qat_towers";

// The plan that a folder's widths, static scales and cache scales amount to. A weight's scales are stored, its ends
// quantized where the folder calibrated them.
ResolvedPlan plan_of_mobile_folder(const MobileFolder& folder, const WeightTable& table);

// Writes the checkpoint folder `out`: masters bf16(code * scale), which encode to the same codes under the same scales
// again; a head that repeats the token table becomes tied; other modalities' tensors travel through as they are.
// `write_more` writes further files (the witness) into the folder before it gets its final name.
void import_mobile_folder(const MobileFolder& folder, const std::filesystem::path& out,
                          const std::function<void(const std::filesystem::path& folder)>& write_more);

}  // namespace qat
