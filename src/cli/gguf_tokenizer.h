// The tokenizer that a GGUF file carries, read back into the form of tokenizer.json.
#pragma once

#include <optional>

#include "data/tokenizer.h"
#include "io/gguf.h"

namespace qat {

// Nothing if the file carries no vocabulary with merges. Throws Error if it is damaged.
std::optional<Tokenizer> tokenizer_from_gguf(const GgufFile& file);

}  // namespace qat
