// Writes a LoRA adapter as a GGUF file for llama.cpp's --lora (reference/gguf_adapter.h has the form).
#pragma once

#include <filesystem>
#include <string>

#include "gemma4/adapter_folder.h"
#include "gemma4/config.h"

namespace qat {

// `config`: of the model that the adapter changes. `name` becomes general.name. Matrices are stored as F32, and the
// alpha that llama.cpp divides by the rank is the one that gives the adapter's scaling, also for rsLoRA.
void export_gguf_adapter(const AdapterFolder& adapter, const Gemma4Config& config, const std::string& name,
                         const std::filesystem::path& output);

}  // namespace qat
