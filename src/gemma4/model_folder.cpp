#include "gemma4/model_folder.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

// The longest known name "embed_tokens.weight" decides; a source without it cannot be this model.
std::string find_prefix(const TensorSource& source) {
  static constexpr std::string_view kAnchor = "embed_tokens.weight";
  std::vector<std::string> prefixes;
  for (const TensorView& tensor : source.tensors()) {
    if (!tensor.name.ends_with(kAnchor)) continue;
    const std::string prefix = tensor.name.substr(0, tensor.name.size() - kAnchor.size());
    if (prefix.empty() || prefix.ends_with('.')) prefixes.push_back(prefix);
  }
  if (prefixes.empty()) fail(source.where(), ": has no tensor \"…embed_tokens.weight\": not a Gemma text model");
  if (prefixes.size() > 1) fail(source.where(), ": has several token embeddings, under \"", prefixes[0], "\" and \"", prefixes[1], "\"");
  return prefixes.front();
}

bool is_float(ElementType type) {
  return type == ElementType::BF16 || type == ElementType::F32 || type == ElementType::F16;
}

// An untied head is named lm_head.weight at the top, outside the prefix.
const TensorView* find_weight(const TensorSource& source, const std::string& prefix, const WeightSpec& weight) {
  const TensorView* tensor = source.find(prefix + weight.name);
  return tensor == nullptr && weight.role == WeightRole::OutputHead ? source.find(weight.name) : tensor;
}

}  // namespace

MasterWeights::MasterWeights(const WeightTable& table, const TensorSource& source)
    : source_(source), prefix_(find_prefix(source)) {
  std::string problems;
  int count = 0;
  const auto note = [&](const std::string& problem) {
    if (++count <= 20) problems += "\n  " + problem;
  };
  for (const WeightSpec& weight : table.weights()) {
    const TensorView* tensor = find_weight(source, prefix_, weight);
    if (tensor == nullptr) {
      note(weight.name + ": is missing");
    } else if (tensor->shape != weight.shape) {
      note(weight.name + ": shape " + shape_text(tensor->shape) + ", config.json wants " + shape_text(weight.shape));
    } else if (!is_float(tensor->type)) {
      note(weight.name + ": type " + std::string(element_name(tensor->type)) + ", wanted BF16, F32 or F16");
    } else {
      by_weight_.emplace(weight.name, tensor);
      by_tensor_.emplace(tensor, &weight);
    }
  }
  if (count == 0) return;
  if (count > 20) problems += "\n  and " + std::to_string(count - 20) + " more";
  fail(source.where(), ": the weights do not fit config.json (names under \"", prefix_, "\"):", problems);
}

const TensorView& MasterWeights::of(const WeightSpec& weight) const {
  const auto found = by_weight_.find(weight.name);
  QAT_CHECK(found != by_weight_.end());
  return *found->second;
}

const WeightSpec* MasterWeights::weight_of(const TensorView& tensor) const {
  const auto found = by_tensor_.find(&tensor);
  return found == by_tensor_.end() ? nullptr : found->second;
}

ModelFolder::ModelFolder(const fs::path& path) : path_(path), config_(Gemma4Config::load(path)), table_(config_) {
  recover_output_folder(path);
  tensors_ = std::make_unique<SafetensorsSource>(path);
  masters_ = std::make_unique<MasterWeights>(table_, *tensors_);
  if (const fs::path file = path / "quantization.json"; fs::exists(file)) {
    plan_ = ResolvedPlan::from_json(load_json(file), table_, file.string());
    load_scales();
  }
}

void ModelFolder::load_scales() {
  const fs::path file = path_ / "scales.safetensors";
  if (fs::exists(file)) scales_ = std::make_unique<SafetensorsSource>(file);
  for (const auto& [name, plan] : plan_->weights) {
    if (plan.scales != ScaleSource::Stored) continue;
    const TensorView* scales = scales_ == nullptr ? nullptr : scales_->find(name);
    const int64_t blocks = table_.find(name)->elements() / scheme(plan.scheme).block_size;
    if (scales == nullptr) fail(file.string(), ": has no scales of ", name, ", which quantization.json calls stored");
    if (scales->type != ElementType::F16 || scales->elements() != blocks) {
      fail(file.string(), ": scales of ", name, ": ", scales->elements(), " of type ", element_name(scales->type),
           ", wanted ", blocks, " of F16");
    }
    const auto values = stored_scales(name);
    const auto bad = std::find_if(values.begin(), values.end(), [](Float16 s) { return (s.bits & 0x7c00) == 0x7c00; });
    if (bad != values.end()) fail(file.string(), ": scale ", bad - values.begin(), " of ", name, " is not finite");
  }
}

std::span<const Float16> ModelFolder::stored_scales(std::string_view weight) const {
  if (!plan_ || plan_->of(weight).scales != ScaleSource::Stored) return {};
  const TensorView* scales = scales_->find(weight);
  QAT_CHECK(scales != nullptr);
  return {reinterpret_cast<const Float16*>(scales->bytes.data()), static_cast<size_t>(scales->elements())};
}

namespace {

// Everything of the base folder but weights and this program's own files; folders are left out.
void copy_side_files(const fs::path& from, const fs::path& to) {
  static constexpr std::array kOwn{"quantization.json", "model.safetensors.index.json"};
  for (const auto& entry : fs::directory_iterator(from)) {
    const fs::path name = entry.path().filename();
    const bool own = std::find(kOwn.begin(), kOwn.end(), name.string()) != kOwn.end();
    if (!entry.is_regular_file() || name.extension() == ".safetensors" || own) continue;
    std::error_code error;
    fs::copy_file(entry.path(), to / name, fs::copy_options::overwrite_existing, error);
    if (error) fail((to / name).string(), ": cannot be written: ", error.message());
  }
}

void write_tensors(const fs::path& path, const CheckpointContents& contents) {
  SafetensorsWriter writer(path);
  writer.set_metadata({{"format", "pt"}});
  const auto write_weight = [&](const WeightSpec& weight) {
    contents.write_master(weight, [&](std::span<const BFloat16> part) { writer.write(std::as_bytes(part)); });
  };
  if (contents.base_tensors == nullptr) {
    const auto& weights = contents.table->weights();
    for (const WeightSpec& weight : weights) writer.declare("model." + weight.name, ElementType::BF16, weight.shape);
    for (const WeightSpec& weight : weights) write_weight(weight);
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

}  // namespace

void write_checkpoint(const fs::path& path, const CheckpointContents& contents) {
  OutputFolder folder(path);
  const fs::path& target = folder.working_path();
  copy_side_files(*contents.base_folder, target);
  write_tensors(target / "model.safetensors", contents);
  if (contents.plan != nullptr) {
    write_file(target / "quantization.json", contents.plan->to_json().dump(1) + "\n");
    if (!contents.stored_scales.empty()) {
      SafetensorsWriter scales(target / "scales.safetensors");
      for (const auto& [name, values] : contents.stored_scales) {
        scales.declare(name, ElementType::F16, {static_cast<int64_t>(values.size())});
      }
      for (const auto& [name, values] : contents.stored_scales) scales.write(std::as_bytes(values));
      scales.commit();
    }
  }
  if (contents.write_more) contents.write_more(target);
  folder.commit();
}

}  // namespace qat
