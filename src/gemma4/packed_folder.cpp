#include "gemma4/packed_folder.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/json.h"
#include "gemma4/tensor_faults.h"
#include "gemma4/text_prefix.h"
#include "quant/block_codec.h"
#include "quant/grid.h"

namespace qat {

namespace {

using Json = nlohmann::json;

constexpr const char* kMethod = "compressed-tensors";

std::string find_prefix(const TensorSource& source) {
  const auto prefix = find_text_prefix(source, {"embed_tokens.weight", "embed_tokens.weight_packed"});
  if (prefix) return *prefix;
  fail(source.where(),
       ": no tensor is named embed_tokens.weight beside a norm.weight, under any prefix: this is no Gemma "
       "text model");
}

// The member of this name, or null.
Json member(const Json& json, const char* name) {
  return json.is_object() && json.contains(name) ? json[name] : Json();
}

// What other tools read of these groups, and this one does not.
void check_quantization(const std::filesystem::path& file) {
  const Json quantization = member(load_json(file), "quantization_config");
  const auto check = [&](const std::string& name, const Json& found, const Json& wanted) {
    if (found == wanted) return;
    fail(file.string(), ": quantization_config: ", name, " is ", found.dump(), ", wanted ", wanted.dump(),
         ": only symmetric 4-bit weights without quantized activations are read");
  };
  check("format", member(quantization, "format"), "pack-quantized");
  const Json groups = member(quantization, "config_groups");
  if (!groups.is_object() || groups.empty()) fail(file.string(), ": quantization_config: has no config_groups");
  for (const auto& [name, group] : groups.items()) {
    const Json weights = member(group, "weights");
    check(name + ".weights.num_bits", member(weights, "num_bits"), 4);
    check(name + ".weights.type", member(weights, "type"), "int");
    check(name + ".weights.symmetric", member(weights, "symmetric"), true);
    check(name + ".weights.actorder", member(weights, "actorder"), nullptr);
    check(name + ".input_activations", member(group, "input_activations"), nullptr);
    check(name + ".output_activations", member(group, "output_activations"), nullptr);
  }
}

}  // namespace

// Fills the members of a folder, and collects what is wrong.
class PackedFolder::Reader {
 public:
  explicit Reader(PackedFolder& folder) : folder_(folder) {}

  void read_weight(const WeightSpec& weight) {
    const std::string module = module_in_file(folder_.tensors_, folder_.prefix_, weight, ".weight");
    const std::string packed = is_matrix(weight.role) ? packed_module(weight) : "";
    if (!packed.empty()) {
      read_packed(weight, packed);
    } else {
      read_values(weight, weight.role == WeightRole::OutputHead ? module + ".weight" : folder_.prefix_ + weight.name);
    }
  }

  // Codes of other modalities could not be told from numbers once config.json no longer speaks of them.
  void check_others() {
    for (const TensorView& tensor : folder_.tensors_.tensors()) {
      if (tensor.name.ends_with("_packed") && !known_.contains(tensor.name)) {
        faults_.add(tensor.name, " belongs to no linear or table of the text model, which alone may be quantized");
      }
      for (const char* ending : {"weight_zero_point", "weight_g_idx"}) {
        if (tensor.name.ends_with(ending))
          faults_.add(tensor.name, ": codes with an offset or in another order are not read");
      }
    }
  }

  void finish() const { faults_.throw_if_any(folder_.path_.string(), "compressed-tensors"); }

 private:
  const TensorView* find(const std::string& name) const { return folder_.tensors_.find(name); }

  // Empty where the weight is not packed.
  std::string packed_module(const WeightSpec& weight) const {
    std::string module = module_in_file(folder_.tensors_, folder_.prefix_, weight, ".weight_packed");
    return find(module + ".weight_packed") != nullptr ? module : "";
  }

  void read_values(const WeightSpec& weight, const std::string& name) {
    const TensorView* tensor = find(name);
    if (tensor == nullptr || !float_scheme(tensor->type) || tensor->shape != weight.shape) {
      faults_.add(name, " ", describe(tensor), ", wanted BF16, F16 or F32 ", shape_text(weight.shape));
      return;
    }
    folder_.weights_[weight.name].values = tensor;
  }

  void read_packed(const WeightSpec& weight, const std::string& module) {
    const std::string name = module + ".weight_packed";
    known_.insert(name);
    const TensorView* tensor = find(name);
    const std::vector<int64_t> shape{weight.rows(), weight.columns() / 8};
    if (weight.shape.size() != 2 || weight.columns() % grid::kBlock != 0) {
      faults_.add(name, ": ", shape_text(weight.shape), " has no rows of whole blocks of ", grid::kBlock);
    } else if (tensor->type != ElementType::I32 || tensor->shape != shape) {
      faults_.add(name, " ", describe(tensor), ", wanted I32 ", shape_text(shape));
    } else {
      folder_.weights_[weight.name] = {tensor->bytes, block_scales(weight, module + ".weight_scale"), nullptr};
    }
  }

  std::vector<Float16> block_scales(const WeightSpec& weight, const std::string& name) {
    const TensorView* tensor = find(name);
    const int64_t blocks_of_row = weight.columns() / grid::kBlock;
    const auto id = tensor == nullptr ? std::nullopt : float_scheme(tensor->type);
    if (!id || tensor->shape.size() != 2 || tensor->shape[0] != weight.rows() || tensor->shape[1] < 1 ||
        blocks_of_row % tensor->shape[1] != 0) {
      faults_.add(name, " ", describe(tensor), ", wanted BF16, F16 or F32 ",
                  shape_text(std::vector{weight.rows(), blocks_of_row}), ", or fewer groups of whole blocks");
      return {};
    }
    std::vector<float> groups(static_cast<size_t>(tensor->elements()));
    decode_blocks(*id, tensor->bytes, groups);
    const auto repeats = static_cast<size_t>(blocks_of_row / tensor->shape[1]);
    std::vector<Float16> scales;
    scales.reserve(groups.size() * repeats);
    for (size_t i = 0; i < groups.size(); ++i) {
      const Float16 scale = to_float16(groups[i]);
      const bool holds = std::isfinite(to_float(scale)) && (to_float(scale) != 0 || groups[i] == 0);
      if (!holds) {
        faults_.add(name, " has ", groups[i], " at ", i, ", which is no number that an fp16 scale can stand for");
        return {};
      }
      if (to_float(scale) != groups[i]) folder_.rounded_scales_ += static_cast<int64_t>(repeats);
      scales.insert(scales.end(), repeats, scale);
    }
    return scales;
  }

  PackedFolder& folder_;
  std::set<std::string> known_;  // tensors of codes that were read
  TensorFaults faults_;
};

bool PackedFolder::is_one(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path / "config.json")) return false;
  return member(member(load_json(path / "config.json"), "quantization_config"), "quant_method") == kMethod;
}

PackedFolder::PackedFolder(const std::filesystem::path& path)
    : path_(path),
      config_((check_quantization(path / "config.json"), Gemma4Config::load(path))),
      table_(config_),
      tensors_(path),
      prefix_(find_prefix(tensors_)) {
  Reader reader(*this);
  for (const WeightSpec& weight : table_.weights()) reader.read_weight(weight);
  reader.check_others();
  reader.finish();
}

const PackedWeight& PackedFolder::weight(std::string_view name) const {
  const auto found = weights_.find(name);
  QAT_CHECK(found != weights_.end());
  return found->second;
}

}  // namespace qat
