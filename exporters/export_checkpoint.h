// From a checkpoint folder to the files a user takes away: model.gguf and, beside it, an Ollama Modelfile.
#pragma once

#include <filesystem>
#include <string>

#include "gemma4/model_folder.h"

namespace qat {

struct ExportOptions {
  std::string name;  // general.name; "" = the checkpoint folder's name
  int threads = 0;   // 0 = all cores
};

// A folder without a plan is written unquantized: matrices BF16, everything else F32. Throws as export_gguf() does.
void export_checkpoint(const ModelFolder& checkpoint, const std::filesystem::path& out, const ExportOptions& options);

// Where the Modelfile of a GGUF file goes: "e2b.gguf" -> "e2b.Modelfile".
std::filesystem::path modelfile_path(const std::filesystem::path& gguf);

}  // namespace qat
