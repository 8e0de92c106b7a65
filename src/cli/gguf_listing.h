// What a GGUF file holds, for `inspect`.
#pragma once

#include <filesystem>

namespace qat {

void list_gguf(const std::filesystem::path& path, bool as_json);

}  // namespace qat
