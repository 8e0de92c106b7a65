// qat_litertlm_export_dump FOLDER OUTPUT [context=N] [prefill=A,B,...] [embedder=separate|shared]
// [template=FILE]: writes a folder of
// transformers' `quant_method: gemma` as .litertlm file, with codes and scales straight from its tensors, for tests of
// the runtime. Prints figures as JSON.
#include <cstring>
#include <iostream>
#include <map>
#include <sstream>
#include <string>

#include "core/error.h"
#include "core/float_types.h"
#include "exporters/litertlm_exporter.h"
#include "exporters/litertlm_splice.h"
#include "io/safetensors.h"
#include "quant/packing.h"

namespace {

using namespace qat;

class HfMobileWeights final : public LitertlmWeights {
 public:
  explicit HfMobileWeights(const std::filesystem::path& folder)
      : config_(Gemma4Config::load(folder)), table_(config_), source_(folder) {}

  const Gemma4Config& config() const override { return config_; }
  const WeightTable& table() const override { return table_; }

  const QuantScheme& scheme_of(const WeightSpec& weight) const override {
    const TensorView* packed = find_codes(weight);
    if (packed == nullptr) return scheme(is_matrix(weight.role) ? Scheme::BF16 : Scheme::F32);
    const int64_t values_per_byte = weight.elements() / packed->elements();
    return scheme(values_per_byte == 4 ? Scheme::Int2 : values_per_byte == 2 ? Scheme::Int4 : Scheme::Int8);
  }

  std::span<const float> scales(const WeightSpec& weight) const override {
    const std::string stem = stem_of(weight);
    const TensorView* tensor = source_.find(stem + (is_table(weight) ? ".embedding_scale" : ".weight_scale"));
    if (tensor == nullptr) return {};
    auto& values = scales_[weight.name];
    values.resize(tensor->bytes.size() / sizeof(float));
    std::memcpy(values.data(), tensor->bytes.data(), tensor->bytes.size());
    return values;
  }

  void codes(const WeightSpec& weight, int64_t first_row, int64_t rows, std::span<int8_t> codes) const override {
    const QuantScheme& form = scheme_of(weight);
    const auto row_bytes = static_cast<size_t>(form.row_bytes(weight.columns()));
    const auto bytes = find_codes(weight)->bytes.subspan(static_cast<size_t>(first_row) * row_bytes,
                                                         static_cast<size_t>(rows) * row_bytes);
    unpack_codes(form.id, CodeBytes::Offset, bytes, codes);
    source_.release(bytes);
  }

  void values(const WeightSpec& weight, int64_t first_row, int64_t rows, std::span<float> values) const override {
    const std::string stem = weight.role == WeightRole::LayerScalar ? stem_of(weight) : stem_of(weight) + ".weight";
    const TensorView* tensor = source_.find(stem);
    if (tensor == nullptr) fail(stem, ": missing");
    const int64_t begin = first_row * weight.columns();
    for (int64_t i = 0; i < rows * weight.columns(); ++i) {
      const auto index = static_cast<size_t>(begin + i);
      float& value = values[static_cast<size_t>(i)];
      if (tensor->type == ElementType::F32) {
        std::memcpy(&value, tensor->bytes.data() + index * sizeof(float), sizeof(float));
      } else {
        BFloat16 half;
        std::memcpy(&half, tensor->bytes.data() + index * sizeof(half), sizeof(half));
        value = to_float(half);
      }
    }
  }

  LinearScales linear_scales(const WeightSpec& weight) const override {
    if (is_table(weight)) return {};
    const std::string stem = stem_of(weight);
    return {number(stem + ".input_activation_scale"), number(stem + ".output_activation_scale")};
  }

  CacheScales cache_scales(int64_t layer) const override {
    const std::string stem = prefix() + "layers." + std::to_string(layer) + ".self_attn.";
    return {number(stem + "k_cache_scale"), number(stem + "v_cache_scale")};
  }

 private:
  static bool is_table(const WeightSpec& weight) {
    return weight.role == WeightRole::TokenEmbedding || weight.role == WeightRole::PerLayerEmbedding;
  }

  std::string prefix() const {
    return source_.find("model.language_model.norm.weight") != nullptr ? "model.language_model." : "model.";
  }

  std::string stem_of(const WeightSpec& weight) const {
    std::string name = weight.name;
    if (name.ends_with(".weight")) name.resize(name.size() - 7);
    return (weight.role == WeightRole::OutputHead ? "" : prefix()) + name;
  }

  const TensorView* find_codes(const WeightSpec& weight) const {
    const TensorView* tensor = source_.find(stem_of(weight) + (is_table(weight) ? ".embedding_quantized" : ".weight"));
    const bool packed = tensor != nullptr && (tensor->type == ElementType::U8 || tensor->type == ElementType::I8);
    return packed ? tensor : nullptr;
  }

  float number(const std::string& name) const {
    const TensorView* tensor = source_.find(name);
    float value = 0;
    if (tensor != nullptr) std::memcpy(&value, tensor->bytes.data(), sizeof(value));
    return value;
  }

  Gemma4Config config_;
  WeightTable table_;
  SafetensorsSource source_;
  mutable std::map<std::string, std::vector<float>> scales_;
};

void apply_option(const std::string& option, LitertlmExportInputs& inputs, std::string& base) {
  const size_t equals = option.find('=');
  const std::string name = option.substr(0, equals), value = option.substr(equals + 1);
  if (name == "context") {
    inputs.context = std::stoll(value);
  } else if (name == "prefill") {
    std::istringstream lengths(value);
    for (std::string length; std::getline(lengths, length, ',');) inputs.prefill_lengths.push_back(std::stoll(length));
  } else if (name == "template") {
    base = value;
  } else if (name == "embedder") {
    inputs.embedder = value == "shared" ? EmbedderLayout::Shared : EmbedderLayout::Separate;
  } else {
    fail_usage("unknown option ", option);
  }
}

}  // namespace

int main(int count, char** arguments) try {
  if (count < 3) fail_usage("usage: qat_litertlm_export_dump FOLDER OUTPUT [OPTION=VALUE...]");
  const HfMobileWeights weights(arguments[1]);
  LitertlmExportInputs inputs;
  inputs.weights = &weights;
  inputs.model_folder = arguments[1];
  inputs.output = arguments[2];
  std::string base;
  for (int i = 3; i < count; ++i) apply_option(arguments[i], inputs, base);
  if (!base.empty()) {
    const LitertlmSpliceFigures figures = splice_litertlm(weights, base, inputs.output);
    std::cout << "{\"constants\": " << figures.constants << ", \"scales\": " << figures.scales << "}\n";
    return 0;
  }
  const LitertlmExportFigures figures = export_litertlm(inputs);
  std::cout << "{\"file_bytes\": " << figures.file_bytes << ", \"context\": " << figures.context
            << ", \"seconds\": " << figures.seconds << "}\n";
  return 0;
} catch (const Error& error) {
  std::cerr << "error: " << error.what() << "\n";
  return static_cast<int>(error.exit_code());
}
