#include <cinttypes>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/gguf_listing.h"
#include "cli/mobile_listing.h"
#include "core/error.h"
#include "core/terminal.h"
#include "gemma4/mobile_folder.h"
#include "gemma4/model_folder.h"

namespace qat {

namespace {

const CommandHelp kHelp{
    "gemma-qat inspect PATH [--json]",
    "Shows what PATH holds: a model folder, a checkpoint (weights by scheme, sizes, plan), a GGUF file (metadata, "
    "tensors), a mobile folder or a .litertlm file (sections, weights, static scales).",
    "  gemma-qat inspect gemma-4-E2B-it\n"
    "  gemma-qat inspect e2b.gguf --json"};

struct SchemeTotal {
  int64_t weights = 0;
  int64_t elements = 0;
  int64_t bytes = 0;
};

nlohmann::ordered_json describe_config(const Gemma4Config& config) {
  nlohmann::ordered_json layers = nlohmann::ordered_json::array();
  for (const LayerConfig& layer : config.layers) {
    nlohmann::ordered_json entry{{"type", layer.type == LayerType::Full ? "full" : "sliding"},
                                 {"heads", layer.heads},
                                 {"key_value_heads", layer.key_value_heads},
                                 {"head_dim", layer.head_dim},
                                 {"intermediate_size", layer.intermediate_size}};
    if (layer.key_value_donor) entry["reads_keys_of"] = *layer.key_value_donor;
    if (layer.value_is_key) entry["value_is_key"] = true;
    layers.push_back(std::move(entry));
  }
  return {{"architecture", config.architecture()},
          {"hidden_size", config.hidden_size},
          {"vocabulary_size", config.vocabulary_size},
          {"sliding_window", config.sliding_window},
          {"per_layer_input_size", config.per_layer_input_size},
          {"experts", config.experts},
          {"layers", std::move(layers)}};
}

nlohmann::ordered_json describe_folder(const ModelFolder& folder) {
  std::map<std::string, SchemeTotal> totals;
  nlohmann::ordered_json weights = nlohmann::ordered_json::array();
  for (const WeightSpec& weight : folder.table().weights()) {
    const bool quantized = folder.plan() && is_matrix(weight.role);
    const QuantScheme& row = scheme(quantized ? folder.plan()->of(weight.name).scheme : Scheme::BF16);
    const int64_t bytes = weight.rows() * row.row_bytes(weight.columns());
    SchemeTotal& total = totals[std::string(row.name)];
    total.weights += 1;
    total.elements += weight.elements();
    total.bytes += bytes;
    weights.push_back({{"name", weight.name},
                       {"gguf_name", weight.gguf_name},
                       {"role", role_name(weight.role)},
                       {"shape", weight.shape},
                       {"scheme", row.name},
                       {"bytes", bytes}});
  }
  nlohmann::ordered_json schemes = nlohmann::ordered_json::object();
  for (const auto& [name, total] : totals) {
    schemes[name] = {{"weights", total.weights}, {"elements", total.elements}, {"bytes", total.bytes}};
  }
  nlohmann::ordered_json json{{"kind", folder.plan() ? "checkpoint" : "model folder"},
                              {"plan", folder.plan() ? folder.plan()->name : ""},
                              {"kv_cache", folder.plan() && folder.plan()->key_value_cache ? scheme(*folder.plan()->key_value_cache).name : "none"},
                              {"prefix", folder.masters().prefix()},
                              {"other_tensors", folder.tensors().tensors().size() - folder.table().weights().size()},
                              {"schemes", std::move(schemes)},
                              {"config", describe_config(folder.config())}};
  json["weights"] = std::move(weights);
  return json;
}

void print_folder(const nlohmann::ordered_json& json) {
  const auto& config = json["config"];
  std::printf("%s of architecture %s: %zu layers, hidden size %" PRId64 ", vocabulary %" PRId64 "\n",
              json["kind"].get<std::string>().c_str(), config["architecture"].get<std::string>().c_str(),
              config["layers"].size(), config["hidden_size"].get<int64_t>(), config["vocabulary_size"].get<int64_t>());
  if (!json["plan"].get<std::string>().empty()) {
    std::printf("plan %s, KV cache %s\n", json["plan"].get<std::string>().c_str(), json["kv_cache"].get<std::string>().c_str());
  }
  std::printf("\n%-8s %8s %14s %10s\n", "scheme", "weights", "elements", "size");
  for (const auto& item : json["schemes"].items()) {
    std::printf("%-8s %8" PRId64 " %14" PRId64 " %10s\n", item.key().c_str(), item.value()["weights"].get<int64_t>(),
                item.value()["elements"].get<int64_t>(),
                format_bytes(item.value()["bytes"].get<double>()).c_str());
  }
  if (const auto others = json["other_tensors"].get<int64_t>(); others > 0) {
    std::printf("and %" PRId64 " tensors of other modalities or not read by the model\n", others);
  }
}

}  // namespace

int command_inspect(const Arguments& arguments) {
  const auto parsed = parse_arguments(
      arguments, kHelp, [](cxxopts::Options& options) { options.add_options()("json", "print everything as JSON"); }, 1, 1);
  if (parsed.helped) return 0;
  const std::filesystem::path path = parsed.positional[0];
  const bool as_json = parsed.options.count("json") > 0;
  if (!std::filesystem::exists(path)) fail(path.string(), ": does not exist");
  if (std::filesystem::is_directory(path) && MobileFolder::is_one(path)) {
    list_mobile_folder(path, as_json);
  } else if (path.extension() == ".litertlm") {
    list_litertlm(path, as_json);
  } else if (std::filesystem::is_directory(path)) {
    const auto json = describe_folder(ModelFolder(path));
    if (as_json) {
      std::printf("%s\n", json.dump(2).c_str());
    } else {
      print_folder(json);
    }
  } else {
    list_gguf(path, as_json);
  }
  return 0;
}

}  // namespace qat
