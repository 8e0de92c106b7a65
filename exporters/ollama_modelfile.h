// The Modelfile with which `ollama create` takes an exported GGUF file.
#pragma once

#include <optional>
#include <string>

#include "data/chat_template.h"

namespace qat {

// `gguf_name` is the file's name in the same folder. Without a chat template (base models) the prompt is passed as it
// is.
std::string ollama_modelfile(const std::string& gguf_name, std::optional<ChatTemplateKind> chat_template);

}  // namespace qat
