#include <flatbuffers/flatbuffers.h>

#include <algorithm>

#include "core/checked_math.h"
#include "core/error.h"
#include "io/tflite.h"
#include "io/tflite_schema_generated.h"

namespace qat {

namespace {

namespace fbs = tflite_schema;
using flatbuffers::Offset;

// XNNPACK reads weights in vectors; a cache line suits every loader.
constexpr uint64_t kConstantAlignment = 64;
// Stands in for an offset that is not known yet: a default value would not be stored.
constexpr uint64_t kUnknownOffset = 2;

struct Settings {
  fbs::BuiltinOptions type = fbs::BuiltinOptions::NONE;
  Offset<void> table;
};

class ModelWriter {
 public:
  explicit ModelWriter(const TfliteModel& model) : model_(model), builder_(expected_bytes(model)) {}

  TfliteLayout write() {
    write_quantizations();
    std::vector<Offset<fbs::SubGraph>> graphs;
    std::vector<Offset<fbs::SignatureDef>> signatures;
    for (const TfliteGraph& graph : model_.graphs) {
      graphs.push_back(subgraph(graph));
      signatures.push_back(signature(graph, static_cast<uint32_t>(signatures.size())));
    }
    const auto buffer_tables = buffers();
    const auto graph_tables = builder_.CreateVector(graphs);
    const auto signature_tables = builder_.CreateVector(signatures);
    const auto codes = builder_.CreateVector(codes_);
    const auto description = builder_.CreateString(model_.description);
    fbs::FinishModelBuffer(
        builder_, fbs::CreateModel(builder_, 3, codes, graph_tables, description, buffer_tables, signature_tables));
    return laid_out();
  }

 private:
  // Growing copies the buffer; scales are most of it.
  static size_t expected_bytes(const TfliteModel& model) {
    size_t scales = 0, largest = 0;
    for (const auto& quantization : model.quantizations) {
      scales += quantization.size() * sizeof(float);
      largest = std::max(largest, quantization.size());
    }
    return scales + largest * sizeof(int64_t) + (size_t{1} << 20);
  }

  void write_quantizations() {
    std::map<size_t, Offset<flatbuffers::Vector<int64_t>>> zero_points;  // by length: all are zero
    for (const std::vector<float>& scales : model_.quantizations) {
      auto [found, is_new] = zero_points.try_emplace(scales.size());
      if (is_new) found->second = builder_.CreateVector(std::vector<int64_t>(scales.size()));
      const auto scale_vector = builder_.CreateVector(scales);
      quantizations_.push_back(fbs::CreateQuantizationParameters(builder_, scale_vector, found->second));
    }
  }

  Offset<fbs::Tensor> tensor(const TfliteTensor& facts) {
    const auto shape = builder_.CreateVector(facts.shape);
    const auto name = builder_.CreateString(facts.name);
    const auto quantization =
        facts.quantization ? quantizations_.at(*facts.quantization) : Offset<fbs::QuantizationParameters>();
    // Buffer 0 is the empty one of tensors that are no constants.
    return fbs::CreateTensor(builder_, shape, static_cast<int8_t>(facts.type), facts.constant ? *facts.constant + 1 : 0,
                             name, quantization, true);
  }

  Settings settings(const TfliteSettings& facts) {
    const auto pack = [](fbs::BuiltinOptions type, auto offset) { return Settings{type, offset.Union()}; };
    using Options = fbs::BuiltinOptions;
    if (const auto* s = std::get_if<FullyConnectedSettings>(&facts)) {
      return pack(Options::FullyConnectedOptions, fbs::CreateFullyConnectedOptions(builder_, s->keep_dimensions));
    }
    if (const auto* s = std::get_if<SoftmaxSettings>(&facts)) {
      return pack(Options::SoftmaxOptions, fbs::CreateSoftmaxOptions(builder_, s->beta));
    }
    if (const auto* s = std::get_if<ConcatenationSettings>(&facts)) {
      return pack(Options::ConcatenationOptions, fbs::CreateConcatenationOptions(builder_, s->axis));
    }
    if (const auto* s = std::get_if<MeanSettings>(&facts)) {
      return pack(Options::ReducerOptions, fbs::CreateReducerOptions(builder_, s->keep_dimensions));
    }
    if (const auto* s = std::get_if<CastSettings>(&facts)) {
      return pack(Options::CastOptions,
                  fbs::CreateCastOptions(builder_, static_cast<int8_t>(s->from), static_cast<int8_t>(s->to)));
    }
    if (const auto* s = std::get_if<BatchMatmulSettings>(&facts)) {
      return pack(Options::BatchMatMulOptions, fbs::CreateBatchMatMulOptions(builder_, s->adjoint_x, s->adjoint_y));
    }
    if (const auto* s = std::get_if<GeluSettings>(&facts)) {
      return pack(Options::GeluOptions, fbs::CreateGeluOptions(builder_, s->approximate));
    }
    return {};
  }

  uint32_t operator_code(TfliteOp op, int32_t version) {
    const auto key = std::pair(op, version);
    const auto found = std::find(known_codes_.begin(), known_codes_.end(), key);
    if (found != known_codes_.end()) return static_cast<uint32_t>(found - known_codes_.begin());
    const auto number = static_cast<int32_t>(op);
    codes_.push_back(fbs::CreateOperatorCode(builder_, static_cast<int8_t>(std::min(number, 127)), version, number));
    known_codes_.push_back(key);
    return static_cast<uint32_t>(codes_.size() - 1);
  }

  Offset<fbs::SubGraph> subgraph(const TfliteGraph& graph) {
    std::vector<Offset<fbs::Tensor>> tensors;
    for (const TfliteTensor& facts : graph.tensors) tensors.push_back(tensor(facts));
    std::vector<Offset<fbs::Operator>> operators;
    for (const TfliteOperator& facts : graph.operators) {
      const uint32_t code = operator_code(facts.op, facts.version);
      const auto inputs = builder_.CreateVector(facts.inputs);
      const auto outputs = builder_.CreateVector(facts.outputs);
      const Settings table = settings(facts.settings);
      operators.push_back(fbs::CreateOperator(builder_, code, inputs, outputs, table.type, table.table));
    }
    const auto indices = [&](const TfliteNamedTensors& named) {
      std::vector<int32_t> result;
      for (const auto& [name, index] : named) result.push_back(index);
      return builder_.CreateVector(result);
    };
    const auto tensor_tables = builder_.CreateVector(tensors);
    const auto inputs = indices(graph.inputs), outputs = indices(graph.outputs);
    const auto operator_tables = builder_.CreateVector(operators);
    return fbs::CreateSubGraph(builder_, tensor_tables, inputs, outputs, operator_tables,
                               builder_.CreateString(graph.key));
  }

  Offset<fbs::SignatureDef> signature(const TfliteGraph& graph, uint32_t index) {
    const auto maps = [&](const TfliteNamedTensors& named) {
      std::vector<Offset<fbs::TensorMap>> result;
      for (const auto& [name, tensor] : named) {
        result.push_back(fbs::CreateTensorMap(builder_, builder_.CreateString(name), static_cast<uint32_t>(tensor)));
      }
      return builder_.CreateVector(result);
    };
    const auto inputs = maps(graph.inputs), outputs = maps(graph.outputs);
    return fbs::CreateSignatureDef(builder_, inputs, outputs, builder_.CreateString(graph.key), index);
  }

  Offset<flatbuffers::Vector<Offset<fbs::Buffer>>> buffers() {
    std::vector<Offset<fbs::Buffer>> result{fbs::CreateBuffer(builder_)};
    for (const TfliteConstant& constant : model_.constants) {
      if (constant.content.empty()) {
        result.push_back(fbs::CreateBuffer(builder_, 0, kUnknownOffset, constant.bytes));
        continue;
      }
      builder_.ForceVectorAlignment(constant.content.size(), 1, 16);
      const auto content =
          builder_.CreateVector(reinterpret_cast<const uint8_t*>(constant.content.data()), constant.content.size());
      result.push_back(fbs::CreateBuffer(builder_, content));
    }
    return builder_.CreateVector(result);
  }

  TfliteLayout laid_out() {
    TfliteLayout layout;
    layout.bytes = align_up(builder_.GetSize(), kConstantAlignment);
    auto* tables = fbs::GetMutableModel(builder_.GetBufferPointer())->mutable_buffers();
    for (size_t i = 0; i < model_.constants.size(); ++i) {
      layout.offsets.push_back(0);
      if (!model_.constants[i].content.empty()) continue;
      layout.offsets.back() = layout.bytes;
      QAT_CHECK(tables->GetMutableObject(static_cast<flatbuffers::uoffset_t>(i + 1))->mutate_offset(layout.bytes));
      layout.bytes = align_up(layout.bytes + model_.constants[i].bytes, kConstantAlignment);
    }
    const auto* begin = reinterpret_cast<const std::byte*>(builder_.GetBufferPointer());
    layout.flatbuffer.assign(begin, begin + builder_.GetSize());
    return layout;
  }

  const TfliteModel& model_;
  flatbuffers::FlatBufferBuilder builder_;
  std::vector<Offset<fbs::QuantizationParameters>> quantizations_;
  std::vector<Offset<fbs::OperatorCode>> codes_;
  std::vector<std::pair<TfliteOp, int32_t>> known_codes_;
};

}  // namespace

TfliteLayout lay_out_tflite(const TfliteModel& model) { return ModelWriter(model).write(); }

}  // namespace qat
