#include "reference/litertlm_model.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/json.h"
#include "io/tensor_source.h"

namespace qat {

namespace {

std::optional<Scheme> scheme_of(TfliteType type) {
  switch (type) {
    case TfliteType::Float32:
      return Scheme::F32;
    case TfliteType::Float16:
      return Scheme::F16;
    case TfliteType::Int8:
      return Scheme::Int8;
    case TfliteType::Int4:
      return Scheme::Int4;
    case TfliteType::Int2:
      return Scheme::Int2;
    default:
      return std::nullopt;
  }
}

Gemma4Config read_config(const LitertlmFile& file) {
  const LitertlmSectionView* section = file.find(LitertlmSectionType::GenericBinary, "name", "config.json");
  if (section == nullptr) {
    fail(file.where(), ": holds no config.json; only .litertlm files that gemma-qat wrote can be read");
  }
  const std::string_view text(reinterpret_cast<const char*>(section->bytes.data()), section->bytes.size());
  const std::string where = file.where() + ": config.json";
  return Gemma4Config::parse(parse_json(text, where), where);
}

// A constant as a weight with `columns` columns instead of its own.
WeightView view_of(const TfliteTensorView& tensor, const WeightSpec& spec, int64_t columns, const std::string& where) {
  std::vector<int64_t> shape = spec.shape;
  shape.back() = columns;
  const auto id = scheme_of(tensor.type);
  if (!id || tensor.shape != shape) {
    fail(where, ": ", tensor.name, " is ", tflite_type_name(tensor.type), " ", shape_text(tensor.shape),
         ", config.json wants ", shape_text(shape));
  }
  WeightView view{&scheme(*id), shape, tensor.content, spec.name};
  if (!view.scheme->has_row_scales()) return view;
  if (columns % view.scheme->block_size != 0) {
    fail(where, ": ", tensor.name, " has rows of ", columns, " values, wanted a multiple of ", view.scheme->block_size);
  }
  if (static_cast<int64_t>(tensor.scales.size()) != shape.front()) {
    fail(where, ": ", tensor.name, " has ", tensor.scales.size(), " scales, wanted one for each of ", shape.front(),
         " rows");
  }
  for (const float scale : tensor.scales) {
    if (!std::isnormal(scale) || scale <= 0) {
      fail(where, ": ", tensor.name, " has the scale ", scale, ", wanted positive numbers");
    }
  }
  view.scales = tensor.scales;
  view.scale_width = columns;
  return view;
}

}  // namespace

LitertlmModel::LitertlmModel(const LitertlmFile& file) : where_(file.where()), config_(read_config(file)) {
  open_models(file);
  const auto& signatures = models_.front()->signatures();
  const auto decode = signatures.find("decode");
  if (decode == signatures.end()) fail(where_, ": has no signature \"decode\"");
  const Linears linears = linears_of(models_.front()->graphs()[decode->second.graph], where_);
  const bool head_is_table = !linears.contains("lm_head.weight");
  config_.tied_head = false;
  const WeightTable wanted(config_);
  for (const WeightSpec& spec : wanted.weights()) {
    if (spec.role == WeightRole::PerLayerEmbedding) {
      add_per_layer_tables(spec);
    } else if (is_table(spec.role)) {
      weights_[spec.name] = table(spec.name, spec, spec.columns());
    } else if (spec.role == WeightRole::OutputHead && head_is_table) {
      WeightSpec head = spec;
      head.name = "embed_tokens.weight";
      weights_[spec.name] = linear(head, linears);
    } else if (is_matrix(spec.role)) {
      weights_[spec.name] = linear(spec, linears);
    } else {
      WeightView& view = weights_[spec.name] = table(spec.name, spec, spec.columns());
      if (view.scheme->is_quantized()) fail(where_, ": ", spec.name, " is ", view.scheme->name, ", wanted numbers");
    }
  }
  read_caches(decode->second);
}

void LitertlmModel::open_models(const LitertlmFile& file) {
  for (const char* type : {"tf_lite_prefill_decode", "tf_lite_embedder", "tf_lite_per_layer_embedder"}) {
    const LitertlmSectionView* section = file.find(LitertlmSectionType::TfliteModel, "model_type", type);
    if (section == nullptr) {
      if (models_.empty()) fail(where_, ": has no section ", type);
      continue;
    }
    models_.push_back(std::make_unique<TfliteFile>(section->bytes, where_ + ": " + type));
  }
  // The last model wins: lookups read the embedder's table, not a head of the same name.
  for (const auto& model : models_) {
    for (const TfliteGraphView& graph : model->graphs()) {
      for (const auto& tensor : graph.tensors) {
        if (tensor && tensor->is_constant()) constants_[tensor->name] = &*tensor;
      }
    }
  }
}

const TfliteTensorView& LitertlmModel::constant(const std::string& name) const {
  const auto found = constants_.find(name);
  if (found == constants_.end()) {
    fail(where_, ": holds no constant ", name, "; only .litertlm files that gemma-qat wrote can be read");
  }
  return *found->second;
}

WeightView LitertlmModel::table(const std::string& name, const WeightSpec& spec, int64_t columns) const {
  return view_of(constant(name), spec, columns, where_);
}

WeightView LitertlmModel::linear(const WeightSpec& spec, const Linears& linears) {
  const auto found = linears.find(spec.name);
  if (found == linears.end()) fail(where_, ": no linear of the decode graph uses a constant ", spec.name);
  const LitertlmLinear& facts = found->second;
  WeightView view = view_of(*facts.weight, spec, spec.columns(), where_);
  view.edges = facts.edges;
  for (const float scale : {facts.edges.input, facts.edges.output}) {
    if (scale != 0 && (!std::isnormal(scale) || scale < 0)) {
      fail(where_, ": an edge of ", spec.name, " has the scale ", scale, ", wanted a positive number");
    }
  }
  if (view.scheme->has_row_scales()) return view;
  // The forward pass multiplies this linear's result itself; what is left is the power of two of float16 storage.
  const bool scaled_later = spec.role == WeightRole::PerLayerModelProjection && facts.edges.output == 0;
  const float later = scaled_later ? 1.0f / std::sqrt(static_cast<float>(config_.hidden_size)) : 1.0f;
  return unscaled(std::move(view), facts.factor / later);
}

WeightView LitertlmModel::unscaled(WeightView view, float factor) {
  if (factor == 1) return view;
  int exponent = 0;
  if (!std::isnormal(factor) || std::frexp(factor, &exponent) != 0.5f) {
    fail(where_, ": the result of ", view.name, " is multiplied by ", factor, ", which is no power of two");
  }
  auto& values =
      *decoded_.emplace_back(std::make_unique<std::vector<float>>(static_cast<size_t>(view.rows() * view.columns())));
  decode_rows(view, 0, view.rows(), values);
  for (float& value : values) value *= factor;
  view.scheme = &scheme(Scheme::F32);
  view.blocks = std::as_bytes(std::span(values));
  return view;
}

void LitertlmModel::add_per_layer_tables(const WeightSpec& spec) {
  if (constants_.contains(spec.name)) fail(where_, ": ", spec.name, " must be one constant per layer");
  for (int64_t layer = 0; layer < config_.layer_count(); ++layer) {
    per_layer_tables_.push_back(table(spec.name + "." + std::to_string(layer), spec, config_.per_layer_input_size));
  }
}

// The scale of a cache's codes, 0 for an fp32 cache.
float LitertlmModel::cache_scale(const TfliteSignatureView& decode, const std::string& name, const LayerConfig& layer) {
  const auto found = decode.inputs.find(name);
  const auto& tensors = models_.front()->graphs()[decode.graph].tensors;
  if (found == decode.inputs.end() || !tensors[static_cast<size_t>(found->second)]) {
    fail(where_, ": the signature \"decode\" has no input ", name);
  }
  const TfliteTensorView& cache = *tensors[static_cast<size_t>(found->second)];
  if (cache.shape.size() != 4 || cache.shape[1] != layer.key_value_heads || cache.shape[3] != layer.head_dim) {
    fail(where_, ": ", name, " has the shape ", shape_text(cache.shape), ", wanted [1, ", layer.key_value_heads,
         ", positions, ", layer.head_dim, "]");
  }
  context_ = context_ == 0 ? cache.shape[2] : std::min(context_, cache.shape[2]);
  if (cache.type == TfliteType::Float32) return 0;
  if (cache.type != TfliteType::Int8 || cache.scales.size() != 1 || !std::isnormal(cache.scales[0]) ||
      cache.scales[0] < 0) {
    fail(where_, ": ", name, " is ", tflite_type_name(cache.type), " with ", cache.scales.size(),
         " scales, wanted int8 with one positive scale, or float32");
  }
  return cache.scales[0];
}

void LitertlmModel::read_caches(const TfliteSignatureView& decode) {
  for (const LayerConfig& layer : config_.layers) {
    if (layer.key_value_donor) continue;
    const std::string index = std::to_string(layer.index);
    caches_[layer.index] = {cache_scale(decode, "kv_cache_k_" + index, layer),
                            cache_scale(decode, "kv_cache_v_" + index, layer)};
  }
}

CacheScales LitertlmModel::cache_scales(int64_t layer) const {
  const auto found = caches_.find(layer);
  return found == caches_.end() ? CacheScales{} : found->second;
}

}  // namespace qat
