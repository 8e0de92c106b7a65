#include "gemma4/model_folder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

// Names of scalar scales, as in Gemma's mobile checkpoints (mobile_format.md 2.1).
constexpr const char* kInputScale = ".input_activation_scale";
constexpr const char* kOutputScale = ".output_activation_scale";
constexpr const char* kKeyCacheScale = "k_cache_scale";
constexpr const char* kValueCacheScale = "v_cache_scale";

}  // namespace

ModelFolder::ModelFolder(const fs::path& path) : path_(path), config_(Gemma4Config::load(path)), table_(config_) {
  recover_output_folder(path);
  tensors_ = std::make_unique<SafetensorsSource>(path);
  masters_ = std::make_unique<MasterWeights>(table_, *tensors_);
  if (const fs::path file = path / "quantization.json"; fs::exists(file)) {
    plan_ = ResolvedPlan::from_json(load_json(file), table_, file.string());
    load_scales();
  }
}

const TensorView* ModelFolder::find_scales(const std::string& name, ElementType type, int64_t count) const {
  const fs::path file = path_ / "scales.safetensors";
  const TensorView* scales = scales_ == nullptr ? nullptr : scales_->find(name);
  if (scales == nullptr) fail(file.string(), ": has no \"", name, "\", which quantization.json asks for");
  if (scales->type != type || scales->elements() != count) {
    fail(file.string(), ": ", name, ": ", scales->elements(), " of type ", element_name(scales->type), ", wanted ", count,
         " of ", element_name(type));
  }
  if (reinterpret_cast<uintptr_t>(scales->bytes.data()) % static_cast<uintptr_t>(element_bytes(type)) != 0) {
    fail(file.string(), ": ", name, " does not lie on a multiple of its element's size");
  }
  return scales;
}

void ModelFolder::load_scales() {
  const fs::path file = path_ / "scales.safetensors";
  if (fs::exists(file)) scales_ = std::make_unique<SafetensorsSource>(file);
  for (const WeightSpec& weight : table_.weights()) {
    const WeightPlan& plan = plan_->of(weight.name);
    if (plan.scales != ScaleSource::Stored) continue;
    if (scheme(plan.scheme).has_row_scales()) {
      find_scales(weight.name, ElementType::F32, weight.row_scales());
      const auto values = row_scales(weight.name);
      const auto bad = std::find_if(values.begin(), values.end(), [](float s) { return !(s > 0) || !std::isnormal(s); });
      if (bad != values.end()) {
        fail(file.string(), ": scale ", bad - values.begin(), " of ", weight.name, " is ", *bad,
             ", wanted a positive number");
      }
    } else {
      find_scales(weight.name, ElementType::F16, weight.elements() / scheme(plan.scheme).block_size);
      const auto values = stored_scales(weight.name);
      const auto bad = std::find_if(values.begin(), values.end(), [](Float16 s) { return (s.bits & 0x7c00) == 0x7c00; });
      if (bad != values.end()) {
        fail(file.string(), ": scale ", bad - values.begin(), " of ", weight.name, " is not finite");
      }
    }
  }
  if (plan_->has_static_scales()) load_static_scales();
}

void ModelFolder::load_static_scales() {
  const auto read = [&](const std::string& name) {
    float value = 0;
    std::memcpy(&value, find_scales(name, ElementType::F32, 1)->bytes.data(), sizeof(value));
    if (!(value > 0) || !std::isnormal(value)) {
      fail((path_ / "scales.safetensors").string(), ": ", name, " is ", value,
           ", wanted a positive number; an edge that was not calibrated cannot be run or exported");
    }
    return value;
  };
  for (const WeightSpec& weight : table_.weights()) {
    const WeightPlan& plan = plan_->of(weight.name);
    if (!plan.quantizes_input && !plan.quantizes_output) continue;
    LinearScales& scales = static_scales_.linears[weight.name];
    if (plan.quantizes_input) scales.input = read(weight.module_name() + kInputScale);
    if (plan.quantizes_output) scales.output = read(weight.module_name() + kOutputScale);
  }
  if (plan_->key_value_cache != Scheme::Int8) return;
  for (const LayerConfig& layer : config_.layers) {
    if (layer.key_value_donor) continue;
    const std::string attention = "layers." + std::to_string(layer.index) + ".self_attn.";
    static_scales_.caches[layer.index] = {read(attention + kKeyCacheScale), read(attention + kValueCacheScale)};
  }
}

std::span<const Float16> ModelFolder::stored_scales(std::string_view weight) const {
  if (!plan_ || plan_->of(weight).scales != ScaleSource::Stored) return {};
  if (scheme(plan_->of(weight).scheme).has_row_scales()) return {};
  const TensorView* scales = scales_->find(weight);
  QAT_CHECK(scales != nullptr);
  return {reinterpret_cast<const Float16*>(scales->bytes.data()), static_cast<size_t>(scales->elements())};
}

std::span<const float> ModelFolder::row_scales(std::string_view weight) const {
  if (!plan_ || !scheme(plan_->of(weight).scheme).has_row_scales()) return {};
  const TensorView* scales = scales_->find(weight);
  QAT_CHECK(scales != nullptr);
  return {reinterpret_cast<const float*>(scales->bytes.data()), static_cast<size_t>(scales->elements())};
}

namespace {

void write_tensors(const fs::path& path, const CheckpointContents& contents) {
  SafetensorsWriter writer(path);
  writer.set_metadata({{"format", "pt"}});
  const auto write_weight = [&](const WeightSpec& weight) {
    contents.write_master(weight, [&](std::span<const BFloat16> part) { writer.write(std::as_bytes(part)); });
  };
  if (contents.base_tensors == nullptr) {
    const auto& weights = contents.table->weights();
    for (const WeightSpec& weight : weights) {
      const bool is_head = weight.role == WeightRole::OutputHead;
      writer.declare((is_head ? "" : contents.prefix) + weight.name, ElementType::BF16, weight.shape);
    }
    for (const TensorView* tensor : contents.other_tensors) writer.declare(tensor->name, tensor->type, tensor->shape);
    for (const WeightSpec& weight : weights) write_weight(weight);
    for (const TensorView* tensor : contents.other_tensors) writer.write(tensor->bytes);
  } else {
    const MasterWeights base(*contents.table, *contents.base_tensors);
    for (const TensorView& tensor : contents.base_tensors->tensors()) {
      const bool ours = base.weight_of(tensor) != nullptr;
      writer.declare(tensor.name, ours ? ElementType::BF16 : tensor.type, tensor.shape);
    }
    for (const TensorView& tensor : contents.base_tensors->tensors()) {
      if (const WeightSpec* weight = base.weight_of(tensor)) {
        write_weight(*weight);
      } else {
        writer.write(tensor.bytes);
      }
      contents.base_tensors->release(tensor.bytes);
    }
  }
  writer.commit();
}

std::map<std::string, float> scalar_scales(const StaticScales& scales) {
  std::map<std::string, float> scalars;
  for (const auto& [name, linear] : scales.linears) {
    const std::string module = name.substr(0, name.rfind('.'));
    if (linear.input > 0) scalars[module + kInputScale] = linear.input;
    if (linear.output > 0) scalars[module + kOutputScale] = linear.output;
  }
  for (const auto& [layer, cache] : scales.caches) {
    const std::string attention = "layers." + std::to_string(layer) + ".self_attn.";
    scalars[attention + kKeyCacheScale] = cache.key;
    scalars[attention + kValueCacheScale] = cache.value;
  }
  return scalars;
}

void write_scales(const fs::path& file, const CheckpointContents& contents) {
  const std::map<std::string, float> scalars = scalar_scales(contents.static_scales);
  if (contents.stored_scales.empty() && contents.row_scales.empty() && scalars.empty()) return;
  // Wide elements first, so that all lie aligned.
  SafetensorsWriter writer(file);
  for (const auto& [name, values] : contents.row_scales) {
    writer.declare(name, ElementType::F32, {static_cast<int64_t>(values.size())});
  }
  for (const auto& [name, value] : scalars) writer.declare(name, ElementType::F32, {});
  for (const auto& [name, values] : contents.stored_scales) {
    writer.declare(name, ElementType::F16, {static_cast<int64_t>(values.size())});
  }
  for (const auto& [name, values] : contents.row_scales) writer.write(std::as_bytes(values));
  for (const auto& [name, value] : scalars) writer.write(std::as_bytes(std::span(&value, 1)));
  for (const auto& [name, values] : contents.stored_scales) writer.write(std::as_bytes(values));
  writer.commit();
}

}  // namespace

void copy_side_files(const fs::path& from, const fs::path& to, std::initializer_list<std::string_view> left) {
  for (const auto& entry : fs::directory_iterator(from)) {
    const fs::path name = entry.path().filename();
    const bool stays = std::find(left.begin(), left.end(), name.string()) != left.end();
    if (!entry.is_regular_file() || name.extension() == ".safetensors" || stays) continue;
    std::error_code error;
    fs::copy_file(entry.path(), to / name, fs::copy_options::overwrite_existing, error);
    if (error) fail((to / name).string(), ": cannot be written: ", error.message());
  }
}

void write_checkpoint(const fs::path& path, const CheckpointContents& contents) {
  OutputFolder folder(path);
  const fs::path& target = folder.working_path();
  copy_side_files(*contents.base_folder, target, {"quantization.json", "model.safetensors.index.json"});
  write_tensors(target / "model.safetensors", contents);
  if (contents.plan != nullptr) {
    write_file(target / "quantization.json", contents.plan->to_json().dump(1) + "\n");
    write_scales(target / "scales.safetensors", contents);
  }
  if (contents.write_more) contents.write_more(target);
  folder.commit();
}

}  // namespace qat
