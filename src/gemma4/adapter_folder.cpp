#include "gemma4/adapter_folder.h"

#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/float_types.h"
#include "core/json.h"
#include "core/output_file.h"
#include "io/safetensors.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kTensorFile = "adapter_model.safetensors";
constexpr std::string_view kTensorPrefix = "base_model.model.";
constexpr std::string_view kTensorOfA = ".lora_A.weight";
constexpr std::string_view kTensorOfB = ".lora_B.weight";
constexpr const char* kBaseDigest = "gemma_qat_base_sha256";
constexpr const char* kThroughQuantizer = "gemma_qat_through_quantizer";

// What stands before the table's names in text models and multimodal wrappers, and in files of old ones.
constexpr std::array<std::string_view, 4> kModulePrefixes{"model.language_model.", "language_model.model.", "model.",
                                                          ""};

// Options of PEFT that change what a pair of matrices means, or that add further weights.
constexpr std::array kMustBeOff{"use_dora",         "fan_in_fan_out",    "lora_bias",
                                "use_qalora",       "modules_to_save",   "rank_pattern",
                                "alpha_pattern",    "layer_replication", "trainable_token_indices",
                                "target_parameters"};

bool is_off(const nlohmann::json& value) {
  return value.is_null() || value == false || (value.is_structured() && value.empty());
}

float element_of(const TensorView& tensor, size_t index) {
  const auto size = static_cast<size_t>(element_bytes(tensor.type));
  const std::byte* at = tensor.bytes.data() + index * size;
  if (tensor.type == ElementType::F32) {
    float value;
    std::memcpy(&value, at, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  return tensor.type == ElementType::BF16 ? to_float(BFloat16{bits}) : to_float(Float16{bits});
}

// What is wrong with a matrix of an adapter, or nothing.
std::string fault_of(const TensorView* tensor, const std::vector<int64_t>& shape) {
  if (tensor == nullptr) return "is missing";
  if (tensor->shape != shape) return "has shape " + shape_text(tensor->shape) + ", wanted " + shape_text(shape);
  if (tensor->type == ElementType::F32 || tensor->type == ElementType::BF16 || tensor->type == ElementType::F16)
    return "";
  return "has type " + std::string(element_name(tensor->type)) + ", wanted F32, BF16 or F16";
}

std::vector<float> values_of(const TensorView& tensor, const std::string& where) {
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = element_of(tensor, i);
    if (!std::isfinite(values[i])) fail(where, ": ", tensor.name, " has NaN or infinite values; the file is damaged");
  }
  return values;
}

// The table's name of a module's weight, also of weights that files carry and no model reads; empty if it has none.
std::string weight_name_of(std::string_view module, const WeightTable& table) {
  for (const std::string_view prefix : kModulePrefixes) {
    if (!module.starts_with(prefix)) continue;
    const std::string name = std::string(module.substr(prefix.size())) + ".weight";
    if (table.find(name) != nullptr || table.is_redundant(name)) return name;
  }
  return "";
}

struct Pair {
  const TensorView* a = nullptr;
  const TensorView* b = nullptr;
};

// Collects faults of many tensors for one message.
class Faults {
 public:
  void add(const std::string& line) {
    static constexpr int kListed = 20;
    if (++count_ <= kListed) lines_ += "\n  " + line;
    if (count_ == kListed + 1) lines_ += "\n  and more";
  }
  int count() const { return count_; }
  const std::string& lines() const { return lines_; }

 private:
  int count_ = 0;
  std::string lines_;
};

// The matrices of a file by the weight that they change.
std::map<std::string, Pair> pairs_of(const SafetensorsSource& source, const WeightTable& table, Faults& faults) {
  std::map<std::string, Pair> pairs;
  for (const TensorView& tensor : source.tensors()) {
    std::string_view module = tensor.name;
    const bool is_a = module.ends_with(kTensorOfA);
    if (!module.starts_with(kTensorPrefix) || !(is_a || module.ends_with(kTensorOfB))) {
      faults.add(tensor.name + " is no matrix A or B of LoRA");
      continue;
    }
    module.remove_prefix(kTensorPrefix.size());
    module.remove_suffix(is_a ? kTensorOfA.size() : kTensorOfB.size());
    const std::string name = weight_name_of(module, table);
    if (name.empty()) {
      faults.add(std::string(module) + " is no module of the model");
      continue;
    }
    const TensorView*& place = is_a ? pairs[name].a : pairs[name].b;
    if (place != nullptr) faults.add(tensor.name + " comes twice, the other time as " + place->name);
    place = &tensor;
  }
  return pairs;
}

}  // namespace

float AdapterSettings::scaling() const {
  const auto components = static_cast<double>(rank);
  return static_cast<float>(alpha / (rank_stabilized ? std::sqrt(components) : components));
}

bool takes_adapter(WeightRole role) {
  const bool is_stack = role == WeightRole::ExpertGateUp || role == WeightRole::ExpertDown;
  return is_matrix(role) && !is_table(role) && !is_stack;
}

AdapterFolder::AdapterFolder(const fs::path& path, const WeightTable& table) : path_(path) {
  recover_output_folder(path);
  for (const char* name : {kConfigFile, kTensorFile}) {
    if (!fs::is_regular_file(path / name))
      fail(path.string(), ": is no adapter folder in PEFT's format: it has no ", name);
  }
  read_config();
  read_tensors(table);
}

void AdapterFolder::read_config() {
  const std::string where = (path_ / kConfigFile).string();
  const nlohmann::json config = load_json(path_ / kConfigFile);
  if (!config.is_object()) fail(where, ": is not a JSON object");
  const auto value = [&](const char* name) { return config.contains(name) ? config[name] : nlohmann::json(); };
  if (value("peft_type") != "LORA") fail(where, ": peft_type is ", value("peft_type").dump(), ", wanted \"LORA\"");
  for (const char* name : kMustBeOff) {
    if (!is_off(value(name)))
      fail(where, ": ", name, " is ", value(name).dump(), "; this program reads plain LoRA only");
  }
  if (const auto bias = value("bias"); !bias.is_null() && bias != "none") {
    fail(where, ": bias is ", bias.dump(), "; this model has no biases, so an adapter of it has none");
  }
  const auto rank = value("r");
  if (!rank.is_number_integer() || rank.get<int64_t>() < 1) fail(where, ": r is ", rank.dump(), ", wanted 1 or more");
  const auto alpha = value("lora_alpha");
  if (!alpha.is_number() || !(alpha.get<double>() > 0))
    fail(where, ": lora_alpha is ", alpha.dump(), ", wanted more than 0");
  settings_.rank = rank.get<int64_t>();
  settings_.alpha = alpha.get<double>();
  settings_.rank_stabilized = value("use_rslora") == true;
  if (!std::isfinite(settings_.scaling())) fail(where, ": lora_alpha is ", alpha.dump(), ", too much for fp32");
  if (const auto dropout = value("lora_dropout"); dropout.is_number()) settings_.dropout = dropout.get<double>();
  if (const auto base = value("base_model_name_or_path"); base.is_string()) base_name_ = base.get<std::string>();
}

void AdapterFolder::read_tensors(const WeightTable& table) {
  const SafetensorsSource source(path_ / kTensorFile);
  if (const auto found = source.metadata().find(kBaseDigest); found != source.metadata().end())
    base_digest_ = found->second;
  if (const auto found = source.metadata().find(kThroughQuantizer); found != source.metadata().end())
    settings_.through_quantizer = found->second == "true";
  Faults faults;
  const std::map<std::string, Pair> pairs = pairs_of(source, table, faults);
  for (const WeightSpec& weight : table.weights()) {
    const auto found = pairs.find(weight.name);
    if (found == pairs.end()) continue;
    if (!takes_adapter(weight.role)) {
      faults.add(weight.name + " is no matrix that can have an adapter here");
      continue;
    }
    const Pair& pair = found->second;
    const std::string of_a = fault_of(pair.a, {settings_.rank, weight.columns()});
    const std::string of_b = fault_of(pair.b, {weight.rows(), settings_.rank});
    if (!of_a.empty()) faults.add("A of " + weight.name + " " + of_a);
    if (!of_b.empty()) faults.add("B of " + weight.name + " " + of_b);
    if (!of_a.empty() || !of_b.empty()) continue;
    changes_.push_back({weight, values_of(*pair.a, source.where()), values_of(*pair.b, source.where())});
  }
  if (faults.count() > 0) {
    fail(source.where(), ": this adapter does not fit the model",
         base_name_.empty() ? "" : "; it was trained on " + base_name_, " (", faults.count(),
         faults.count() == 1 ? " fault" : " faults", "):", faults.lines());
  }
  if (changes_.empty()) fail(source.where(), ": holds no matrices A and B of any weight of the model");
}

namespace {

nlohmann::ordered_json config_of(const AdapterContents& contents) {
  std::vector<std::string> modules;
  for (const AdapterContents::Change& change : contents.changes) modules.push_back(change.module);
  return {{"peft_type", "LORA"},
          {"task_type", "CAUSAL_LM"},
          {"base_model_name_or_path", contents.base_name},
          {"r", contents.settings.rank},
          {"lora_alpha", contents.settings.alpha},
          {"lora_dropout", contents.settings.dropout},
          {"use_rslora", contents.settings.rank_stabilized},
          {"target_modules", modules},
          {"bias", "none"},
          {"fan_in_fan_out", false},
          {"inference_mode", true}};
}

}  // namespace

void write_adapter(const fs::path& path, const AdapterContents& contents) {
  const int64_t rank = contents.settings.rank;
  OutputFolder folder(path);
  write_file(folder.working_path() / kConfigFile, config_of(contents).dump(1) + "\n");
  SafetensorsWriter writer(folder.working_path() / kTensorFile);
  std::map<std::string, std::string> metadata{{"format", "pt"}, {kBaseDigest, contents.base_digest}};
  if (const auto through = contents.settings.through_quantizer)
    metadata[kThroughQuantizer] = *through ? "true" : "false";
  writer.set_metadata(std::move(metadata));
  for (const AdapterContents::Change& change : contents.changes) {
    const std::string module = std::string(kTensorPrefix) + change.module;
    writer.declare(module + std::string(kTensorOfA), ElementType::F32, {rank, change.columns});
    writer.declare(module + std::string(kTensorOfB), ElementType::F32, {change.rows, rank});
  }
  for (const AdapterContents::Change& change : contents.changes) {
    writer.write(std::as_bytes(change.a));
    writer.write(std::as_bytes(change.b));
  }
  writer.commit();
  folder.commit();
}

}  // namespace qat
