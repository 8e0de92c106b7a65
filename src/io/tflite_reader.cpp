#include <flatbuffers/flatbuffers.h>

#include <algorithm>
#include <array>

#include "core/checked_math.h"
#include "core/error.h"
#include "io/tflite.h"
#include "io/tflite_schema_generated.h"

namespace qat {

namespace {

namespace fbs = tflite_schema;

struct TypeFacts {
  TfliteType type;
  std::string_view name;
  uint64_t bits;
};

constexpr std::array<TypeFacts, 7> kTypes{{{TfliteType::Float32, "float32", 32},
                                           {TfliteType::Float16, "float16", 16},
                                           {TfliteType::Int32, "int32", 32},
                                           {TfliteType::Bool, "bool", 8},
                                           {TfliteType::Int8, "int8", 8},
                                           {TfliteType::Int4, "int4", 4},
                                           {TfliteType::Int2, "int2", 2}}};

const TypeFacts* facts_of(TfliteType type) {
  const auto found = std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeFacts& t) { return t.type == type; });
  return found == kTypes.end() ? nullptr : &*found;
}

// Official files have about a thousand graphs.
constexpr flatbuffers::uoffset_t kMostTables = 50'000'000;
constexpr size_t kMostDimensions = 8;

std::string_view text_of(const flatbuffers::String* text) {
  return text == nullptr ? std::string_view() : std::string_view(text->data(), text->size());
}

class ModelReader {
 public:
  ModelReader(std::span<const std::byte> bytes, const std::string& where) : bytes_(bytes), where_(where) {
    const size_t limit = std::min<size_t>(bytes.size(), FLATBUFFERS_MAX_BUFFER_SIZE - 1);
    if (limit < 8) fail(where_, ": no TFLite model: ", bytes.size(), " bytes");
    if (reinterpret_cast<uintptr_t>(bytes.data()) % 16 != 0)
      fail(where_, ": the model does not begin at a multiple of 16");
    flatbuffers::Verifier verifier(reinterpret_cast<const uint8_t*>(bytes.data()), limit, 64, kMostTables);
    if (!fbs::VerifyModelBuffer(verifier)) {
      fail(where_, ": no TFLite model, or cut or damaged (identifier TFL3 and sound tables wanted)");
    }
    model_ = fbs::GetModel(bytes.data());
    if (model_->version() != 3) fail(where_, ": TFLite version ", model_->version(), ", wanted 3");
    if (model_->subgraphs() == nullptr || model_->buffers() == nullptr || model_->operator_codes() == nullptr) {
      fail(where_, ": a TFLite model without graphs, buffers or operators");
    }
  }

  std::vector<TfliteGraphView> graphs() const {
    std::vector<TfliteGraphView> result;
    for (const fbs::SubGraph* graph : *model_->subgraphs()) result.push_back(read_graph(*graph));
    return result;
  }

  std::map<std::string, TfliteSignatureView, std::less<>> signatures(const std::vector<TfliteGraphView>& graphs) const {
    std::map<std::string, TfliteSignatureView, std::less<>> result;
    if (model_->signature_defs() == nullptr) return result;
    for (const fbs::SignatureDef* signature : *model_->signature_defs()) {
      const std::string key(text_of(signature->signature_key()));
      TfliteSignatureView view{signature->subgraph_index(), {}, {}};
      if (view.graph >= graphs.size())
        fail(where_, ": signature ", key, " names graph ", view.graph, " of ", graphs.size());
      view.inputs = named(signature->inputs(), graphs[view.graph], key);
      view.outputs = named(signature->outputs(), graphs[view.graph], key);
      if (!result.emplace(key, std::move(view)).second) fail(where_, ": signature ", key, " stands there twice");
    }
    return result;
  }

 private:
  std::map<std::string, int32_t, std::less<>> named(
      const flatbuffers::Vector<flatbuffers::Offset<fbs::TensorMap>>* maps, const TfliteGraphView& graph,
      const std::string& key) const {
    std::map<std::string, int32_t, std::less<>> result;
    if (maps == nullptr) return result;
    for (const fbs::TensorMap* map : *maps) {
      if (map->tensor_index() >= graph.tensors.size()) {
        fail(where_, ": signature ", key, " names tensor ", map->tensor_index(), " of ", graph.tensors.size());
      }
      result.emplace(text_of(map->name()), static_cast<int32_t>(map->tensor_index()));
    }
    return result;
  }

  TfliteGraphView read_graph(const fbs::SubGraph& graph) const {
    TfliteGraphView view;
    view.name = text_of(graph.name());
    if (graph.tensors() != nullptr) {
      for (const fbs::Tensor* tensor : *graph.tensors()) view.tensors.push_back(read_tensor(*tensor));
    }
    if (graph.operators() == nullptr) return view;
    for (const fbs::Operator* op : *graph.operators()) {
      if (op->opcode_index() >= model_->operator_codes()->size()) {
        fail(where_, ": graph ", view.name, ": operator code ", op->opcode_index(), " does not exist");
      }
      const fbs::OperatorCode* code = model_->operator_codes()->Get(op->opcode_index());
      view.operators.push_back({std::max<int32_t>(code->builtin_code(), code->deprecated_builtin_code()),
                                indices(op->inputs(), view), indices(op->outputs(), view)});
    }
    return view;
  }

  std::vector<int32_t> indices(const flatbuffers::Vector<int32_t>* values, const TfliteGraphView& graph) const {
    std::vector<int32_t> result;
    if (values == nullptr) return result;
    for (const int32_t value : *values) {
      if (value < -1 || value >= static_cast<int64_t>(graph.tensors.size())) {
        fail(where_, ": graph ", graph.name, ": tensor ", value, " of ", graph.tensors.size());
      }
      result.push_back(value);
    }
    return result;
  }

  std::optional<TfliteTensorView> read_tensor(const fbs::Tensor& tensor) const {
    TfliteTensorView view{text_of(tensor.name()), static_cast<TfliteType>(tensor.type()), {}, {}, {}};
    if (facts_of(view.type) == nullptr) return std::nullopt;
    if (tensor.shape() != nullptr) view.shape.assign(tensor.shape()->begin(), tensor.shape()->end());
    const auto elements = element_count(view.shape);
    if (!elements || view.shape.size() > kMostDimensions)
      fail(where_, ": tensor ", view.name, " has an impossible shape");
    if (const fbs::QuantizationParameters* quantization = tensor.quantization()) read_scales(*quantization, view);
    view.content = content(tensor);
    if (view.is_constant() && tflite_bytes(view.type, static_cast<uint64_t>(*elements)) != view.content.size()) {
      fail(where_, ": tensor ", view.name, " has ", view.content.size(), " bytes, which its type ",
           tflite_type_name(view.type), " and shape contradict");
    }
    return view;
  }

  void read_scales(const fbs::QuantizationParameters& quantization, TfliteTensorView& view) const {
    const auto* scales = quantization.scale();
    if (scales == nullptr || scales->size() == 0) return;
    const auto dimension = static_cast<uint64_t>(quantization.quantized_dimension());
    if (scales->size() > 1 &&
        (dimension >= view.shape.size() || scales->size() != static_cast<uint64_t>(view.shape[dimension]))) {
      fail(where_, ": tensor ", view.name, " has ", scales->size(), " scales, which its shape contradicts");
    }
    if (scales->size() > 1 && dimension != 0) return;  // of convolutions in other modalities' graphs
    view.scales = {scales->data(), scales->size()};
  }

  std::span<const std::byte> content(const fbs::Tensor& tensor) const {
    if (tensor.buffer() >= model_->buffers()->size()) {
      fail(where_, ": tensor ", text_of(tensor.name()), " names buffer ", tensor.buffer(), " of ",
           model_->buffers()->size());
    }
    const fbs::Buffer* buffer = model_->buffers()->Get(tensor.buffer());
    // Offsets 0 and 1 mean that the bytes lie in the flatbuffer.
    if (buffer->offset() > 1) {
      const auto end = checked_add(buffer->offset(), buffer->size());
      if (!end || *end > bytes_.size()) {
        fail(where_, ": the bytes of tensor ", text_of(tensor.name()), " end at ", end.value_or(UINT64_MAX),
             ", the model has ", bytes_.size(), ": the file is cut");
      }
      return bytes_.subspan(buffer->offset(), buffer->size());
    }
    if (buffer->data() == nullptr) return {};
    return std::as_bytes(std::span(buffer->data()->data(), buffer->data()->size()));
  }

  std::span<const std::byte> bytes_;
  const std::string& where_;
  const fbs::Model* model_ = nullptr;
};

template <class Condition>
const TfliteTensorView* find_tensor(const std::vector<TfliteGraphView>& graphs, std::string_view name,
                                    Condition condition) {
  for (const TfliteGraphView& graph : graphs) {
    for (const auto& tensor : graph.tensors) {
      if (tensor && tensor->name == name && condition(*tensor)) return &*tensor;
    }
  }
  return nullptr;
}

}  // namespace

std::string_view tflite_type_name(TfliteType type) {
  const TypeFacts* facts = facts_of(type);
  return facts == nullptr ? "unknown" : facts->name;
}

std::optional<uint64_t> tflite_bytes(TfliteType type, uint64_t elements) {
  const TypeFacts* facts = facts_of(type);
  const auto bits = facts == nullptr ? std::nullopt : checked_multiply(elements, facts->bits);
  if (!bits) return std::nullopt;
  return *bits / 8 + (*bits % 8 != 0);
}

int64_t TfliteTensorView::elements() const { return element_count(shape).value_or(0); }

TfliteFile::TfliteFile(std::span<const std::byte> bytes, std::string where) : where_(std::move(where)) {
  const ModelReader reader(bytes, where_);
  graphs_ = reader.graphs();
  signatures_ = reader.signatures(graphs_);
}

const TfliteTensorView* TfliteFile::find_constant(std::string_view name) const {
  return find_tensor(graphs_, name, [](const TfliteTensorView& tensor) { return tensor.is_constant(); });
}

const TfliteTensorView* TfliteFile::find_quantized(std::string_view name) const {
  return find_tensor(graphs_, name, [](const TfliteTensorView& tensor) { return !tensor.scales.empty(); });
}

}  // namespace qat
