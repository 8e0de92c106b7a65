// What a folder or file of the mobile format holds, for `inspect`.
#pragma once

#include <filesystem>

namespace qat {

void list_mobile_folder(const std::filesystem::path& path, bool as_json);
void list_litertlm(const std::filesystem::path& path, bool as_json);

}  // namespace qat
