#include "cli/mobile_listing.h"

#include <cinttypes>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "core/terminal.h"
#include "gemma4/mobile_folder.h"
#include "io/litertlm.h"
#include "reference/litertlm_model.h"
#include "reference/mobile_folder_model.h"

namespace qat {

namespace {

// Weights with their schemes and static scales; each table of several slices counts as one weight.
nlohmann::ordered_json describe_weights(const ReferenceWeights& model) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  const WeightTable table(model.config());
  for (const WeightSpec& spec : table.weights()) {
    if (!is_matrix(spec.role)) continue;
    const auto parts = spec.role == WeightRole::PerLayerEmbedding ? model.per_layer_tables()
                                                                  : std::vector<WeightView>{model.weight(spec.name)};
    size_t bytes = 0;
    for (const WeightView& part : parts) bytes += part.blocks.size() + part.scales.size_bytes();
    nlohmann::ordered_json entry{{"name", spec.name},
                                 {"role", role_name(spec.role)},
                                 {"shape", spec.shape},
                                 {"scheme", parts.front().scheme->name},
                                 {"bytes", bytes}};
    const LinearScales edges = parts.front().edges;
    if (edges.input > 0) entry["input_scale"] = edges.input;
    if (edges.output > 0) entry["output_scale"] = edges.output;
    list.push_back(std::move(entry));
  }
  return list;
}

nlohmann::ordered_json describe_caches(const ReferenceWeights& model) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const LayerConfig& layer : model.config().layers) {
    if (layer.key_value_donor) continue;
    const CacheScales scales = model.cache_scales(layer.index);
    list.push_back({{"layer", layer.index}, {"key_scale", scales.key}, {"value_scale", scales.value}});
  }
  return list;
}

void print(const nlohmann::ordered_json& json, bool as_json) {
  if (as_json) {
    std::printf("%s\n", json.dump(2).c_str());
    return;
  }
  struct Total {
    int64_t weights = 0;
    int64_t bytes = 0;
    int64_t static_ends = 0;
  };
  std::map<std::string, Total> totals;
  for (const auto& weight : json["weights"]) {
    Total& total = totals[weight["scheme"].get<std::string>()];
    total.weights += 1;
    total.bytes += weight["bytes"].get<int64_t>();
    total.static_ends +=
        static_cast<int64_t>(weight.contains("input_scale")) + static_cast<int64_t>(weight.contains("output_scale"));
  }
  std::printf("%s\n", json["kind"].get<std::string>().c_str());
  if (json.contains("sections")) {
    for (const auto& section : json["sections"]) {
      std::printf("  section of type %d %-28s %10s\n", section["type"].get<int>(),
                  section["name"].get<std::string>().c_str(), format_bytes(section["bytes"].get<double>()).c_str());
    }
  }
  std::printf("\n%-8s %8s %10s %18s\n", "scheme", "matrices", "size", "static int8 ends");
  for (const auto& [name, total] : totals) {
    std::printf("%-8s %8" PRId64 " %10s %18" PRId64 "\n", name.c_str(), total.weights,
                format_bytes(static_cast<double>(total.bytes)).c_str(), total.static_ends);
  }
  const bool cached = !json["caches"].empty() && json["caches"][0]["key_scale"].get<float>() > 0;
  std::printf("key-value cache: %s\n", cached ? "int8" : "not quantized");
}

}  // namespace

void list_mobile_folder(const std::filesystem::path& path, bool as_json) {
  const MobileFolder folder(path);
  const MobileFolderModel model(folder);
  print({{"kind", "mobile folder (quant_method gemma)"},
         {"weights", describe_weights(model)},
         {"caches", describe_caches(model)}},
        as_json);
}

void list_litertlm(const std::filesystem::path& path, bool as_json) {
  const LitertlmFile file(path);
  nlohmann::ordered_json sections = nlohmann::ordered_json::array();
  for (const LitertlmSectionView& section : file.sections()) {
    std::string name;
    for (const auto& [key, value] : section.items) name += (name.empty() ? "" : ", ") + value;
    sections.push_back({{"type", static_cast<int>(section.type)}, {"name", name}, {"bytes", section.bytes.size()}});
  }
  const LitertlmModel model(file);
  print({{"kind", "LiteRT-LM file"},
         {"context", model.context()},
         {"sections", sections},
         {"weights", describe_weights(model)},
         {"caches", describe_caches(model)}},
        as_json);
}

}  // namespace qat
