// A folder of packed 4-bit weights as a checkpoint to train on: codes and scales kept, masters placed on them.
#pragma once

#include <filesystem>
#include <functional>

#include "gemma4/packed_folder.h"

namespace qat {

// Writes the checkpoint folder `out`, whose plan "imported" has packed weights in Q4_0 under stored scales and leaves
// the others as they are: masters bf16(code * scale), which encode to the same codes under the same scales again. Other
// modalities' tensors travel through. `write_more` writes further files (the witness) into the folder before it gets
// its final name.
void import_packed_folder(const PackedFolder& folder, const std::filesystem::path& out,
                          const std::function<void(const std::filesystem::path& folder)>& write_more);

}  // namespace qat
