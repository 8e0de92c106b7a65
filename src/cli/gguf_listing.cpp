#include "cli/gguf_listing.h"

#include <cinttypes>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "core/terminal.h"
#include "io/gguf.h"

namespace qat {

namespace {

constexpr size_t kShownElements = 8;  // of an array in the listing

template <class Value>
nlohmann::ordered_json array_json(const std::vector<Value>& values) {
  nlohmann::ordered_json json{{"count", values.size()}};
  auto& first = json["first"] = nlohmann::ordered_json::array();
  for (size_t i = 0; i < std::min(values.size(), kShownElements); ++i) first.push_back(Value(values[i]));
  return json;
}
nlohmann::ordered_json array_json(std::monostate) { return nullptr; }

nlohmann::ordered_json value_json(const GgufValue& value) {
  return std::visit(
      [](const auto& held) -> nlohmann::ordered_json {
        if constexpr (std::is_same_v<std::decay_t<decltype(held)>, GgufArray>) {
          return std::visit([](const auto& values) { return array_json(values); }, held);
        } else {
          return held;
        }
      },
      value);
}

}  // namespace

void list_gguf(const std::filesystem::path& path, bool as_json) {
  const GgufFile file(path);
  nlohmann::ordered_json metadata = nlohmann::ordered_json::object();
  for (const auto& [key, value] : file.metadata().entries()) metadata[key] = value_json(value);
  nlohmann::ordered_json tensors = nlohmann::ordered_json::array();
  struct Total {
    int64_t tensors = 0;
    int64_t elements = 0;
    int64_t bytes = 0;
  };
  std::map<std::string, Total> totals;
  for (const GgufTensor& tensor : file.tensors()) {
    const std::string name(scheme(tensor.scheme).name);
    Total& total = totals[name];
    total.tensors += 1;
    total.elements += tensor.elements();
    total.bytes += static_cast<int64_t>(tensor.bytes.size());
    tensors.push_back({{"name", tensor.name}, {"shape", tensor.shape}, {"scheme", name}, {"bytes", tensor.bytes.size()}});
  }
  if (as_json) {
    const nlohmann::ordered_json json{{"kind", "GGUF"}, {"metadata", metadata}, {"tensors", tensors}};
    std::printf("%s\n", json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
    return;
  }
  std::printf("GGUF file with %zu metadata entries and %zu tensors\n\n", metadata.size(), file.tensors().size());
  for (const auto& item : metadata.items()) {
    std::string text = item.value().dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    if (text.size() > 100) text = text.substr(0, 100) + " …";
    std::printf("  %-44s %s\n", item.key().c_str(), text.c_str());
  }
  std::printf("\n%-8s %8s %14s %10s\n", "scheme", "tensors", "elements", "size");
  for (const auto& [name, total] : totals) {
    std::printf("%-8s %8" PRId64 " %14" PRId64 " %10s\n", name.c_str(), total.tensors, total.elements,
                format_bytes(static_cast<double>(total.bytes)).c_str());
  }
}

}  // namespace qat
