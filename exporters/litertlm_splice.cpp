#include "exporters/litertlm_splice.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/float_types.h"
#include "core/output_file.h"
#include "exporters/litertlm_decoder.h"
#include "exporters/litertlm_weight_bytes.h"
#include "io/litertlm.h"
#include "io/tflite.h"

namespace qat {

namespace {

constexpr int32_t kComposite = 206;
constexpr size_t kMostProblems = 20;

TfliteType type_of(const QuantScheme& scheme) {
  switch (scheme.id) {
    case Scheme::Int2:
      return TfliteType::Int2;
    case Scheme::Int4:
      return TfliteType::Int4;
    default:
      return TfliteType::Int8;
  }
}

// The Hugging Face name of a weight from the name of a constant: its own, or what Google's converter makes of it.
std::string weight_name(std::string_view constant) {
  static const std::vector<std::pair<const char*, const char*>> kParts{
      {"attn/q_einsum", "self_attn.q_proj"},
      {"attn/k_einsum", "self_attn.k_proj"},
      {"attn/v_einsum", "self_attn.v_proj"},
      {"attn/attn_vec_einsum", "self_attn.o_proj"},
      {"mlp/gating_einsum1", "mlp.gate_proj"},
      {"mlp/gating_einsum2", "mlp.up_proj"},
      {"mlp/linear", "mlp.down_proj"},
      {"per_layer_embedding_gate", "per_layer_input_gate"},
      {"per_layer_embedding_projection", "per_layer_projection"}};
  static const std::regex kLayer("layer_([0-9]+)/");
  std::match_results<std::string_view::const_iterator> layer;
  if (std::regex_search(constant.begin(), constant.end(), layer, kLayer)) {
    for (const auto& [part, name] : kParts) {
      if (constant.find(part) != std::string_view::npos) return "layers." + layer[1].str() + "." + name + ".weight";
    }
  }
  if (constant.find("decode_softmax") != std::string_view::npos) return "lm_head.weight";
  if (constant.find("projected_per_layer_inputs") != std::string_view::npos) return "per_layer_model_projection.weight";
  return std::string(constant);
}

class Splice {
 public:
  Splice(const LitertlmWeights& weights, const std::filesystem::path& base)
      : weights_(weights), table_(weights.table()), file_(base) {}

  LitertlmSpliceFigures run(const std::filesystem::path& output) {
    visit_model("tf_lite_embedder", false);
    if (weights_.config().has_per_layer_inputs()) visit_model("tf_lite_per_layer_embedder", false);
    visit_model("tf_lite_prefill_decode", true);
    for (const WeightSpec& weight : table_.weights()) {
      const bool in_table = weight.role == WeightRole::OutputHead && head_is_table(weights_);
      if (!places_.contains(&weight) && !in_table) problem(weight.name, ": no constant of the file is this weight");
    }
    check_slices();
    if (!problems_.empty()) report();
    OutputFile file(output);
    copy(file);
    write(file);
    file.commit();
    return figures_;
  }

 private:
  template <class... Parts>
  void problem(const Parts&... parts) {
    problems_.insert(join(parts...));
  }

  void report() const {
    std::string list;
    size_t shown = 0;
    for (const std::string& text : problems_) {
      if (++shown <= kMostProblems) list += "\n  " + text;
    }
    if (shown > kMostProblems) list += join("\n  … and ", shown - kMostProblems, " more");
    fail(file_.where(), ": this file's model does not match the checkpoint:", list);
  }

  uint64_t offset_of(const void* position) const {
    return static_cast<uint64_t>(static_cast<const std::byte*>(position) - file_.bytes().data());
  }

  void visit_model(const char* type, bool required) {
    const LitertlmSectionView* section = file_.find(LitertlmSectionType::TfliteModel, "model_type", type);
    if (section == nullptr) {
      if (required) problem("the file has no section ", type);
      return;
    }
    const TfliteFile model(section->bytes, join(file_.where(), ": ", type));
    for (const TfliteGraphView& graph : model.graphs()) visit_graph(graph);
    visit_caches(model);
  }

  void visit_graph(const TfliteGraphView& graph) {
    std::set<int32_t> roles;  // constants that an operation has told the use of
    int64_t lookups = 0, slices = 0;
    for (const TfliteOperatorView& op : graph.operators) {
      if (op.op != static_cast<int32_t>(TfliteOp::EmbeddingLookup) || op.inputs.size() < 2) continue;
      const auto& tensor = graph.tensors[static_cast<size_t>(op.inputs[1])];
      if (tensor && tensor->is_constant()) lookups += is_slice(*tensor);
    }
    for (const TfliteOperatorView& op : graph.operators) {
      if (op.op == static_cast<int32_t>(TfliteOp::EmbeddingLookup) && op.inputs.size() >= 2) {
        const auto& tensor = graph.tensors[static_cast<size_t>(op.inputs[1])];
        if (!tensor || !tensor->is_constant()) continue;
        roles.insert(op.inputs[1]);
        // A model with one layer and equally wide tables would be ambiguous; the larger number of lookups is the
        // slices'.
        if (is_slice(*tensor) && lookups == weights_.config().layer_count()) {
          place_codes(table_.find("embed_tokens_per_layer.weight"), *tensor, slices++);
        } else {
          place_codes(table_.find("embed_tokens.weight"), *tensor, 0);
        }
      }
      if (op.op == static_cast<int32_t>(TfliteOp::FullyConnected) && op.inputs.size() >= 2 && !op.outputs.empty()) {
        const auto& tensor = graph.tensors[static_cast<size_t>(op.inputs[1])];
        if (!tensor || !tensor->is_constant()) continue;
        roles.insert(op.inputs[1]);
        visit_linear(graph, op, *tensor);
      }
    }
    for (size_t i = 0; i < graph.tensors.size(); ++i) {
      const auto& tensor = graph.tensors[i];
      if (!tensor || !tensor->is_constant() || roles.contains(static_cast<int32_t>(i))) continue;
      visit_constant(*tensor);
    }
  }

  bool is_slice(const TfliteTensorView& tensor) const {
    const WeightSpec* table = table_.find("embed_tokens_per_layer.weight");
    return table != nullptr && tensor.shape == std::vector<int64_t>{table->rows(), table->scale_width};
  }

  void visit_linear(const TfliteGraphView& graph, const TfliteOperatorView& op, const TfliteTensorView& tensor) {
    const WeightSpec* weight = table_.find(weight_name(tensor.name));
    // A tied head is a second copy of the table.
    if (weight == nullptr && weight_name(tensor.name) == "lm_head.weight") weight = table_.find("embed_tokens.weight");
    if (weight == nullptr) return problem("constant ", tensor.name, " is no weight of the checkpoint");
    place_codes(weight, tensor, 0);
    const LinearScales scales = weights_.linear_scales(*weight);
    place_edge(*weight, "input", graph.tensors[static_cast<size_t>(std::max(op.inputs[0], 0))], scales.input);
    place_edge(*weight, "output", graph.tensors[static_cast<size_t>(std::max(op.outputs[0], 0))], scales.output);
  }

  // The values of matrices that are not quantized go through a DEQUANTIZE, so they are no operand of a linear; vectors
  // are operands of many operations. Both are known by name alone.
  void visit_constant(const TfliteTensorView& tensor) {
    const WeightSpec* weight = table_.find(weight_name(tensor.name));
    if (weight == nullptr) {
      if (tensor.scales.size() > 1) problem("constant ", tensor.name, " is no weight of the checkpoint");
      return;
    }
    place_codes(weight, tensor, 0);
  }

  void place_codes(const WeightSpec* weight, const TfliteTensorView& tensor, int64_t slice) {
    QAT_CHECK(weight != nullptr);
    const QuantScheme& scheme = weights_.scheme_of(*weight);
    const bool sliced = is_slice(tensor) && weight->role == WeightRole::PerLayerEmbedding;
    const int64_t columns = sliced ? weight->scale_width : weight->columns();
    const bool is_float = tensor.type == TfliteType::Float32 || tensor.type == TfliteType::Float16;
    const bool fits = tensor.elements() == weight->rows() * columns &&
                      (scheme.has_row_scales() ? tensor.type == type_of(scheme) : is_float);
    if (!fits) {
      return problem(weight->name, ": ", scheme.name, " with ", weight->rows() * columns, " values; constant ",
                     tensor.name, " of the file is ", tflite_type_name(tensor.type), " with ", tensor.elements());
    }
    if (tensor.type == TfliteType::Float16 && !check_halves(*weight, tensor)) return;
    places_[weight].insert({offset_of(tensor.content.data()), {slice, tensor.type, columns}});
    if (!scheme.has_row_scales()) return;
    const auto scales = weights_.scales(*weight);
    const int64_t slices = weight->columns() / columns;
    if (static_cast<int64_t>(tensor.scales.size()) != weight->rows()) {
      return problem(weight->name, ": constant ", tensor.name, " has ", tensor.scales.size(), " scales for ",
                     weight->rows(), " rows");
    }
    for (size_t row = 0; row < tensor.scales.size(); ++row) {
      set_scale(&tensor.scales[row], scales[row * static_cast<size_t>(slices) + static_cast<size_t>(slice)],
                weight->name);
    }
  }

  // Values that our exporter had to shift by a power of two have the other half of it in another constant.
  bool check_halves(const WeightSpec& weight, const TfliteTensorView& tensor) {
    constexpr float kShifted = 32768;
    bool shifted = false;
    for (size_t i = 0; i + 1 < tensor.content.size(); i += sizeof(Float16)) {
      Float16 value;
      std::memcpy(&value, tensor.content.data() + i, sizeof(value));
      shifted = shifted || std::fabs(to_float(value)) >= kShifted;
    }
    if (!shifted && half_exponent(weights_, weight) == 0) return true;
    problem(weight.name, ": its values do not fit the file's float16 without a shift; export without --template");
    return false;
  }

  void place_edge(const WeightSpec& weight, const char* end, const std::optional<TfliteTensorView>& tensor,
                  float scale) {
    if (!tensor) return problem(weight.name, ": its ", end, " has a type that this program does not know");
    const bool quantized = tensor->type == TfliteType::Int8 && tensor->scales.size() == 1;
    if (quantized != (scale != 0)) {
      return problem(weight.name, ": its ", end, " is ", quantized ? "" : "not ",
                     "quantized in the file, in the checkpoint it is", quantized ? " not" : "");
    }
    if (quantized) set_scale(&tensor->scales[0], scale, weight.name);
  }

  void visit_caches(const TfliteFile& model) {
    for (const auto& [key, signature] : model.signatures()) {
      const TfliteGraphView& graph = model.graphs()[signature.graph];
      for (const LayerConfig& layer : weights_.config().layers) {
        if (layer.key_value_donor) continue;
        const CacheScales scales = weights_.cache_scales(layer.index);
        place_cache(graph, signature, key_cache_name(layer.index), scales.key);
        place_cache(graph, signature, value_cache_name(layer.index), scales.value);
      }
    }
  }

  void place_cache(const TfliteGraphView& graph, const TfliteSignatureView& signature, const std::string& name,
                   float scale) {
    const auto input = signature.inputs.find(name);
    if (input == signature.inputs.end()) return;  // embedders have no caches
    std::set<int32_t> tensors{input->second};
    bool in_composite = false;
    for (const TfliteOperatorView& op : graph.operators) {
      const bool takes =
          std::any_of(op.inputs.begin(), op.inputs.end(), [&](int32_t i) { return tensors.contains(i); });
      in_composite = in_composite || (takes && op.op == kComposite);
      if (!takes || op.op != static_cast<int32_t>(TfliteOp::DynamicUpdateSlice) || op.inputs.size() < 2) continue;
      tensors.insert(op.inputs[1]);
      tensors.insert(op.outputs.begin(), op.outputs.end());
    }
    for (const int32_t index : tensors) {
      const auto& tensor = graph.tensors[static_cast<size_t>(index)];
      const bool quantized = tensor && tensor->type == TfliteType::Int8 && tensor->scales.size() == 1;
      if (quantized != (scale != 0))
        return problem(name, ": the file and the checkpoint differ in whether it is quantized");
      if (!quantized || tensor->scales[0] == scale) continue;
      if (in_composite) {
        return problem(
            name, ": scale ", tensor->scales[0], " in the file and ", scale,
            " in the checkpoint; inside composites it cannot be replaced: train with the file's cache scales");
      }
      set_scale(&tensor->scales[0], scale, name);
    }
  }

  void set_scale(const float* place, float scale, const std::string& name) {
    const auto [known, is_new] = scales_.try_emplace(offset_of(place), scale);
    if (!is_new && known->second != scale) {
      problem(name, ": the file has one scale where the checkpoint has ", known->second, " and ", scale);
    }
  }

  void check_slices() {
    const WeightSpec* table = table_.find("embed_tokens_per_layer.weight");
    if (table == nullptr || !places_.contains(table)) return;
    std::set<int64_t> slices;
    for (const auto& [offset, place] : places_.at(table)) slices.insert(place.slice);
    if (static_cast<int64_t>(slices.size()) != weights_.config().layer_count()) {
      problem(table->name, ": ", slices.size(), " slices in the file, ", weights_.config().layer_count(), " layers");
    }
  }

  void copy(OutputFile& file) const {
    constexpr size_t kPiece = size_t{16} << 20;
    for (size_t at = 0; at < file_.bytes().size(); at += kPiece) {
      const auto part = file_.bytes().subspan(at, std::min(kPiece, file_.bytes().size() - at));
      file.write_at(at, part);
      file_.release(part);
    }
  }

  void write(OutputFile& file) {
    const WriteBytes put = [&](uint64_t offset, std::span<const std::byte> bytes) { file.write_at(offset, bytes); };
    for (const auto& [weight, places] : places_) {
      figures_.constants += static_cast<int64_t>(places.size());
      std::vector<SlicePlace> slices;
      int64_t width = 0;
      for (const auto& [offset, place] : places) {
        width = place.width;
        if (place.type == TfliteType::Float16) {
          write_halves(weights_, *weight, 0, offset, put);
        } else if (place.type == TfliteType::Float32) {
          write_floats(weights_, *weight, offset, put);
        } else {
          slices.push_back({place.slice, offset});
        }
      }
      if (!slices.empty()) write_codes(weights_, *weight, width, slices, put);
    }
    for (const auto& [offset, scale] : scales_) file.write_at(offset, std::as_bytes(std::span(&scale, 1)));
    figures_.scales = static_cast<int64_t>(scales_.size());
  }

  struct Place {
    int64_t slice;
    TfliteType type;
    int64_t width;
  };

  const LitertlmWeights& weights_;
  const WeightTable& table_;
  LitertlmFile file_;
  std::map<const WeightSpec*, std::map<uint64_t, Place>> places_;  // by offset in the file
  std::map<uint64_t, float> scales_;                               // by offset in the file
  std::set<std::string> problems_;
  LitertlmSpliceFigures figures_;
};

}  // namespace

LitertlmSpliceFigures splice_litertlm(const LitertlmWeights& weights, const std::filesystem::path& base,
                                      const std::filesystem::path& output) {
  return Splice(weights, base).run(output);
}

}  // namespace qat
