// tests/golden/mobile_folder, which scripts/golden/make_mobile_folder.py made with transformers, and changed copies of
// it.
#pragma once

#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/mapped_file.h"
#include "core/output_file.h"
#include "io/safetensors.h"

namespace qat::testing {

inline std::filesystem::path mobile_golden() {
  return std::filesystem::path(QAT_SOURCE_DIR) / "tests/golden/mobile_folder";
}

struct EditableTensor {
  ElementType type;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;

  void set_float(size_t index, float value) { std::memcpy(bytes.data() + 4 * index, &value, sizeof(value)); }
};
using EditableTensors = std::map<std::string, EditableTensor>;

// Copies the golden folder to `folder`; `edit` may change its tensors and the text of its config.json.
inline void write_changed_golden(const std::filesystem::path& folder,
                                 const std::function<void(EditableTensors&, std::string& config)>& edit) {
  std::filesystem::create_directories(folder);
  std::string config = read_text_file(mobile_golden() / "config.json");
  EditableTensors tensors;
  const SafetensorsSource source(mobile_golden() / "model.safetensors");
  for (const TensorView& tensor : source.tensors()) {
    tensors[tensor.name] = {tensor.type, tensor.shape, {tensor.bytes.begin(), tensor.bytes.end()}};
  }
  edit(tensors, config);
  write_file(folder / "config.json", config);
  SafetensorsWriter writer(folder / "model.safetensors");
  for (const auto& [name, tensor] : tensors) writer.declare(name, tensor.type, tensor.shape);
  for (const auto& [name, tensor] : tensors) writer.write(tensor.bytes);
  writer.commit();
}

inline void replace_text(std::string& text, const std::string& found, const std::string& wanted) {
  const size_t at = text.find(found);
  if (at == std::string::npos) throw std::runtime_error("config.json of the golden has no " + found);
  text.replace(at, found.size(), wanted);
}

}  // namespace qat::testing
