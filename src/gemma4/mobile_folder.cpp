#include "gemma4/mobile_folder.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/json.h"
#include "gemma4/tensor_faults.h"
#include "gemma4/text_prefix.h"

namespace qat {

namespace {

// Sums of this many products of int8 codes fit 32 bits.
constexpr int64_t kMostColumns = 131071;

Scheme scheme_of_bits(int bits) { return bits == 2 ? Scheme::Int2 : bits == 4 ? Scheme::Int4 : Scheme::Int8; }

bool is_embedding(WeightRole role) {
  return role == WeightRole::TokenEmbedding || role == WeightRole::PerLayerEmbedding;
}

// Modules that transformers makes linears or embeddings of: experts are bare parameters.
bool is_module(WeightRole role) {
  return is_matrix(role) && role != WeightRole::ExpertGateUp && role != WeightRole::ExpertDown;
}

std::string find_prefix(const TensorSource& source) {
  const auto prefix = find_text_prefix(source, {"embed_tokens.embedding_quantized", "embed_tokens.weight"});
  if (prefix) return *prefix;
  fail(source.where(),
       ": no tensor is named embed_tokens.embedding_quantized beside a norm.weight, under any prefix: this "
       "is no Gemma text model of the mobile format");
}

}  // namespace

// Fills the members of a folder, and collects what is wrong.
class MobileFolder::Reader {
 public:
  Reader(MobileFolder& folder, const MobileWidths& widths) : folder_(folder), widths_(widths) {}

  void read_weight(const WeightSpec& weight) {
    if (!is_module(weight.role)) {
      read_float(weight, folder_.prefix_ + weight.name, "");
      return;
    }
    const std::string module = module_in_file(folder_.tensors_, folder_.prefix_, weight, ".weight");
    const MobileWidths::Choice choice = widths_.of(module, is_embedding(weight.role));
    if (choice.bits == 0) {
      read_float(weight, module + ".weight", choice.rule);
    } else {
      read_quantized(weight, module, choice);
    }
  }

  void read_caches() {
    if (!any_cache_scale()) return;
    for (const LayerConfig& layer : folder_.config_.layers) {
      if (layer.key_value_donor) continue;
      const std::string attention = folder_.prefix_ + "layers." + std::to_string(layer.index) + ".self_attn.";
      folder_.static_scales_.caches[layer.index] = {scalar(attention + "k_cache_scale"),
                                                    scalar(attention + "v_cache_scale")};
    }
  }

  void finish() const { faults_.throw_if_any(folder_.path_.string(), "mobile"); }

 private:
  const TensorView* find(const std::string& name) const { return folder_.tensors_.find(name); }

  void read_float(const WeightSpec& weight, const std::string& name, const std::string& rule) {
    const TensorView* tensor = find(name);
    const auto id = tensor == nullptr ? std::nullopt : float_scheme(tensor->type);
    if (!id || tensor->shape != weight.shape) {
      faults_.add(name, " ", describe(tensor), ", wanted ", describe(ElementType::BF16, weight.shape), ", F16 or F32",
                  rule.empty() ? "" : ": " + rule);
      return;
    }
    folder_.weights_[weight.name] = {&scheme(*id), tensor->bytes};
  }

  void read_quantized(const WeightSpec& weight, const std::string& module, const MobileWidths::Choice& choice) {
    const bool table = is_embedding(weight.role);
    const QuantScheme& row = scheme(scheme_of_bits(choice.bits));
    const std::string name = module + (table ? ".embedding_quantized" : ".weight");
    const TensorView* tensor = find(name);
    if (weight.columns() % row.block_size != 0 || weight.columns() > kMostColumns) {
      faults_.add(name, " has rows of ", weight.columns(), " values, wanted a multiple of ", row.block_size, " up to ",
                  kMostColumns, ": ", choice.rule);
      return;
    }
    const ElementType type = choice.bits == 8 ? ElementType::I8 : ElementType::U8;
    const std::vector<int64_t> shape{weight.rows(), row.row_bytes(weight.columns())};
    if (tensor == nullptr || tensor->type != type || tensor->shape != shape) {
      faults_.add(name, " ", describe(tensor), ", wanted ", describe(type, shape), ": ", choice.rule);
      return;
    }
    MobileWeight& result = folder_.weights_[weight.name];
    result = {&row, tensor->bytes};
    result.scales = scales(module + (table ? ".embedding_scale" : ".weight_scale"),
                           {weight.rows(), weight.row_scales() / weight.rows()});
    if (table) return;
    result.edges = {scalar(module + ".input_activation_scale"), scalar(module + ".output_activation_scale")};
    folder_.static_scales_.linears[weight.name] = result.edges;
  }

  std::span<const float> scales(const std::string& name, const std::vector<int64_t>& shape) {
    const TensorView* tensor = find(name);
    if (tensor == nullptr || tensor->type != ElementType::F32 || tensor->shape.size() != 2 ||
        tensor->shape[0] != shape[0] || tensor->shape[1] < 1 || shape[1] % tensor->shape[1] != 0) {
      faults_.add(name, " ", describe(tensor), ", wanted ", describe(ElementType::F32, shape));
      return {};
    }
    auto values = floats(*tensor);
    for (size_t i = 0; i < values.size(); ++i) {
      if (std::isnormal(values[i]) && values[i] > 0) continue;
      faults_.add(name, " has ", values[i], " at ", i, ", wanted positive numbers");
      break;
    }
    return repeated(values, shape[1] / tensor->shape[1]);
  }

  // A scale may cover several slices of a table's row.
  std::span<const float> repeated(std::span<const float> values, int64_t times) {
    if (times == 1) return values;
    const size_t count = values.size() * static_cast<size_t>(times);
    const auto& copy = folder_.copied_scales_.emplace_back(std::make_unique<float[]>(count));
    for (size_t i = 0; i < count; ++i) copy[i] = values[i / static_cast<size_t>(times)];
    return {copy.get(), count};
  }

  std::span<const float> floats(const TensorView& tensor) {
    const auto count = static_cast<size_t>(tensor.elements());
    if (std::bit_cast<uintptr_t>(tensor.bytes.data()) % alignof(float) == 0) {
      return {reinterpret_cast<const float*>(tensor.bytes.data()), count};
    }
    const auto& copy = folder_.copied_scales_.emplace_back(std::make_unique<float[]>(count));
    std::memcpy(copy.get(), tensor.bytes.data(), tensor.bytes.size());
    return {copy.get(), count};
  }

  // A scale of activations or of the cache.
  float scalar(const std::string& name) {
    const TensorView* tensor = find(name);
    if (tensor == nullptr || tensor->type != ElementType::F32 || tensor->elements() != 1) {
      faults_.add(name, " ", describe(tensor), ", wanted ", describe(ElementType::F32, {}));
      return 0;
    }
    float value;
    std::memcpy(&value, tensor->bytes.data(), sizeof(value));
    if (value != 0 && !(std::isnormal(value) && value > 0)) {
      faults_.add(name, " is ", value, ", wanted 0 (not calibrated) or a positive number");
    }
    return value;
  }

  // Scales of layers that read another one's cache count too: where they are, the donor's must be.
  bool any_cache_scale() const {
    for (const TensorView& tensor : folder_.tensors_.tensors()) {
      if (tensor.name.starts_with(folder_.prefix_) &&
          (tensor.name.ends_with(".k_cache_scale") || tensor.name.ends_with(".v_cache_scale"))) {
        return true;
      }
    }
    return false;
  }

  MobileFolder& folder_;
  const MobileWidths& widths_;
  TensorFaults faults_;
};

bool MobileFolder::is_one(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path / "config.json")) return false;
  const auto config = load_json(path / "config.json");
  if (!config.is_object() || !config.contains("quantization_config")) return false;
  const auto& quantization = config["quantization_config"];
  return quantization.is_object() && quantization.contains("quant_method") && quantization["quant_method"] == "gemma";
}

MobileFolder::MobileFolder(const std::filesystem::path& path)
    : path_(path), config_(Gemma4Config::load(path)), table_(config_), tensors_(path), prefix_(find_prefix(tensors_)) {
  const MobileWidths widths(path / "config.json");
  Reader reader(*this, widths);
  for (const WeightSpec& weight : table_.weights()) reader.read_weight(weight);
  reader.read_caches();
  reader.finish();
  if (config_.tied_head && weight("embed_tokens.weight").scheme->is_quantized()) {
    fail((path / "config.json").string(),
         ": tie_word_embeddings is true, but the token table is quantized, which no "
         "client runs; wanted false and an lm_head of its own");
  }
}

const MobileWeight& MobileFolder::weight(std::string_view name) const {
  const auto found = weights_.find(name);
  QAT_CHECK(found != weights_.end());
  return found->second;
}

}  // namespace qat
