#include "gemma4/model_folder.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"

namespace qat {
namespace fs = std::filesystem;

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
