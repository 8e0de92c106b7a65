// TFLite flatbuffers: writer and reader of the part that a language model in a .litertlm file needs. Large constants
// lie behind the flatbuffer and are written by the caller in pieces; the reader checks everything that it hands out.
// Format: tflite_schema.fbs (google-ai-edge/LiteRT); mobile_format.md 2.3, appendix A.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace qat {

// TensorType of the schema.
enum class TfliteType : int8_t { Float32 = 0, Float16 = 1, Int32 = 2, Bool = 6, Int8 = 9, Int4 = 17, Int2 = 19 };

std::string_view tflite_type_name(TfliteType type);
// Bytes of `elements` values, dense; nothing if the size overflows.
std::optional<uint64_t> tflite_bytes(TfliteType type, uint64_t elements);

// BuiltinOperator of the schema.
enum class TfliteOp : int32_t {
  Add = 0,
  Concatenation = 2,
  Dequantize = 6,
  EmbeddingLookup = 7,
  FullyConnected = 9,
  Mul = 18,
  Reshape = 22,
  Softmax = 25,
  Tanh = 28,
  Transpose = 39,
  Mean = 40,
  Sub = 41,
  Cast = 53,
  Greater = 61,
  Slice = 65,
  Sin = 66,
  Rsqrt = 76,
  Cos = 108,
  Quantize = 114,
  SelectV2 = 123,
  BatchMatmul = 126,
  Gelu = 150,
  DynamicUpdateSlice = 151
};

struct FullyConnectedSettings {
  bool keep_dimensions = true;
};
struct SoftmaxSettings {
  float beta = 1;
};
struct ConcatenationSettings {
  int32_t axis = 0;
};
struct MeanSettings {
  bool keep_dimensions = true;
};
struct CastSettings {
  TfliteType from, to;
};
struct BatchMatmulSettings {
  bool adjoint_x = false, adjoint_y = false;
};
struct GeluSettings {
  bool approximate = true;
};
using TfliteSettings = std::variant<std::monostate, FullyConnectedSettings, SoftmaxSettings, ConcatenationSettings,
                                    MeanSettings, CastSettings, BatchMatmulSettings, GeluSettings>;

// A tensor of a graph to be written.
struct TfliteTensor {
  std::string name;
  TfliteType type = TfliteType::Float32;
  std::vector<int32_t> shape;
  std::optional<uint32_t> constant;      // index into TfliteModel::constants
  std::optional<uint32_t> quantization;  // index into TfliteModel::quantizations
};

struct TfliteOperator {
  TfliteOp op = TfliteOp::Add;
  int32_t version = 1;
  std::vector<int32_t> inputs;  // tensors of the graph; -1 = absent
  std::vector<int32_t> outputs;
  TfliteSettings settings;
};

using TfliteNamedTensors = std::vector<std::pair<std::string, int32_t>>;

// A graph and the signature by which a program calls it.
struct TfliteGraph {
  std::string key;
  std::vector<TfliteTensor> tensors;
  std::vector<TfliteOperator> operators;
  TfliteNamedTensors inputs, outputs;
};

// Either `content`, which goes into the flatbuffer, or `bytes` of space behind it that the caller fills.
struct TfliteConstant {
  uint64_t bytes = 0;
  std::vector<std::byte> content;
};

// Constants and quantizations are shared by all graphs.
struct TfliteModel {
  std::string description;
  std::vector<std::vector<float>> quantizations;  // scales: one, or one per slice along dimension 0; zero points are 0
  std::vector<TfliteConstant> constants;
  std::vector<TfliteGraph> graphs;
};

// Where everything of a model lies, counted from the first byte of the flatbuffer.
struct TfliteLayout {
  std::vector<std::byte> flatbuffer;
  std::vector<uint64_t> offsets;  // of each constant behind the flatbuffer; 0 for those inside
  uint64_t bytes = 0;             // of the flatbuffer and all constants
};

TfliteLayout lay_out_tflite(const TfliteModel& model);

// A tensor of a file that was read. Everything has been checked: a constant's bytes are what type and shape say, scales
// are one or one per slice along dimension 0.
struct TfliteTensorView {
  std::string_view name;
  TfliteType type;
  std::vector<int64_t> shape;
  std::span<const float> scales;       // one, or one per slice along dimension 0; empty: not quantized, or otherwise
  std::span<const std::byte> content;  // of a constant; else empty

  bool is_constant() const { return !content.empty(); }
  int64_t elements() const;
};

struct TfliteOperatorView {
  int32_t op;                   // TfliteOp, or a number that this program does not know
  std::vector<int32_t> inputs;  // -1 = absent
  std::vector<int32_t> outputs;
};

struct TfliteGraphView {
  std::string_view name;
  std::vector<std::optional<TfliteTensorView>> tensors;  // nothing for types that this program does not know
  std::vector<TfliteOperatorView> operators;
};

struct TfliteSignatureView {
  size_t graph;
  std::map<std::string, int32_t, std::less<>> inputs, outputs;  // tensors of the graph by their name in the signature
};

class TfliteFile {
 public:
  // `bytes` is the flatbuffer and what lies behind it, and must outlive this. Throws Error naming `where` and the
  // fault.
  TfliteFile(std::span<const std::byte> bytes, std::string where);

  const std::vector<TfliteGraphView>& graphs() const { return graphs_; }
  const std::map<std::string, TfliteSignatureView, std::less<>>& signatures() const { return signatures_; }
  // A constant by name, from any graph; null if there is none.
  const TfliteTensorView* find_constant(std::string_view name) const;
  // A tensor that carries scales by name, from any graph (edges "….weight.input"); null if there is none.
  const TfliteTensorView* find_quantized(std::string_view name) const;
  const std::string& where() const { return where_; }

 private:
  std::string where_;
  std::vector<TfliteGraphView> graphs_;
  std::map<std::string, TfliteSignatureView, std::less<>> signatures_;
};

}  // namespace qat
