#include "gemma4/text_prefix.h"

namespace qat {

std::optional<std::string> find_text_prefix(const TensorSource& source,
                                            std::initializer_list<std::string_view> tables) {
  for (const std::string_view table : tables) {
    for (const TensorView& tensor : source.tensors()) {
      if (!tensor.name.ends_with(table)) continue;
      std::string prefix = tensor.name.substr(0, tensor.name.size() - table.size());
      if (source.find(prefix + "norm.weight") != nullptr) return prefix;
    }
  }
  return std::nullopt;
}

std::string module_in_file(const TensorSource& source, const std::string& prefix, const WeightSpec& weight,
                           std::string_view ending) {
  static constexpr std::string_view kModel = "model.";
  const std::string module = weight.module_name();
  if (weight.role != WeightRole::OutputHead) return prefix + module;
  const std::string beside = prefix.ends_with(kModel) ? prefix.substr(0, prefix.size() - kModel.size()) : "";
  return source.find(beside + module + std::string(ending)) != nullptr ? beside + module : module;
}

}  // namespace qat
