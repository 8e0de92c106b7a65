// Writes a checkpoint as a folder in transformers' mobile format (`quant_method: gemma`): packed codes, scales of rows,
// activations and caches, an untied head. What it writes: mobile_format.md 2.1.
#pragma once

#include <filesystem>

#include "exporters/mobile_checkpoint.h"

namespace qat {

struct MobileExportFigures {
  int64_t weights = 0;
  uint64_t file_bytes = 0;  // of model.safetensors
  double seconds = 0;
};

// Streams; memory beyond the mapped masters stays below 64 MiB. Other modalities' tensors travel through untouched and
// unquantized. A per-layer model projection that the plan quantizes is written as BF16(code * scale): the format has no
// codes for it. Throws Error, and leaves nothing under the output's name, for a checkpoint that cannot be exported and
// everything that goes wrong with the output.
MobileExportFigures export_mobile_folder(const MobileCheckpoint& checkpoint, const std::filesystem::path& out);

}  // namespace qat
