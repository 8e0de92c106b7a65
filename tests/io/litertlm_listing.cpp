// qat_litertlm_listing FILE: one JSON line per constant of every TFLite section (model, name, type, shape, file offset,
// bytes, scales) and one per section, for tests that look into or damage files.
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "io/litertlm.h"
#include "io/tflite.h"

namespace {

using namespace qat;
using nlohmann::ordered_json;

void list_model(const LitertlmFile& file, const LitertlmSectionView& section) {
  const auto type = section.items.find("model_type");
  const std::string model = type == section.items.end() ? "" : type->second;
  const TfliteFile tflite(section.bytes, file.where() + ": " + model);
  for (const TfliteGraphView& graph : tflite.graphs()) {
    for (const auto& tensor : graph.tensors) {
      if (!tensor || (!tensor->is_constant() && tensor->scales.empty())) continue;
      ordered_json line{{"model", model},         {"graph", graph.name},
                        {"name", tensor->name},   {"type", tflite_type_name(tensor->type)},
                        {"shape", tensor->shape}, {"scales", tensor->scales}};
      if (tensor->is_constant()) {
        line["offset"] = tensor->content.data() - file.bytes().data();
        line["bytes"] = tensor->content.size();
      }
      std::cout << line.dump() << "\n";
    }
  }
}

}  // namespace

int main(int count, char** arguments) try {
  if (count != 2) fail_usage("usage: qat_litertlm_listing FILE");
  const LitertlmFile file(arguments[1]);
  for (const LitertlmSectionView& section : file.sections()) {
    if (section.type == LitertlmSectionType::TfliteModel) list_model(file, section);
    std::cout << ordered_json{{"section", static_cast<int>(section.type)},
                              {"items", section.items},
                              {"offset", section.begin},
                              {"bytes", section.bytes.size()}}
                     .dump()
              << "\n";
  }
  return 0;
} catch (const Error& error) {
  std::cerr << "error: " << error.what() << "\n";
  return static_cast<int>(error.exit_code());
}
