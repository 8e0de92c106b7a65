#include "reference/litertlm_linears.h"

#include <cstring>
#include <optional>
#include <vector>

#include "core/error.h"

namespace qat {

namespace {

class Tracer {
 public:
  Tracer(const TfliteGraphView& graph, const std::string& where)
      : graph_(graph), where_(where), producers_(graph.tensors.size()), consumers_(graph.tensors.size()) {
    for (const TfliteOperatorView& op : graph.operators) {
      for (const int32_t output : op.outputs) {
        if (output >= 0) producers_[static_cast<size_t>(output)] = &op;
      }
      for (const int32_t input : op.inputs) {
        if (input >= 0) consumers_[static_cast<size_t>(input)].push_back(&op);
      }
    }
  }

  std::map<std::string, LitertlmLinear, std::less<>> linears() const {
    std::map<std::string, LitertlmLinear, std::less<>> result;
    for (const TfliteOperatorView& op : graph_.operators) {
      if (!is(&op, TfliteOp::FullyConnected)) continue;
      if (op.inputs.size() < 2 || op.outputs.size() != 1) fail(where_, ": a linear has other operands than wanted");
      const TfliteTensorView* weight = constant_behind(op.inputs[1]);
      if (weight == nullptr) continue;
      const LitertlmLinear linear = trace(op, *weight);
      if (!result.emplace(std::string(weight->name), linear).second) {
        fail(where_, ": ", weight->name, " is used by two linears of a graph");
      }
    }
    return result;
  }

 private:
  static bool is(const TfliteOperatorView* op, TfliteOp wanted) {
    return op != nullptr && op->op == static_cast<int32_t>(wanted);
  }

  const TfliteTensorView* tensor(int32_t index) const {
    if (index < 0 || !graph_.tensors[static_cast<size_t>(index)]) return nullptr;
    return &*graph_.tensors[static_cast<size_t>(index)];
  }
  const TfliteOperatorView* producer(int32_t index) const {
    return index < 0 ? nullptr : producers_[static_cast<size_t>(index)];
  }
  // The only operation that reads a tensor, or null.
  const TfliteOperatorView* consumer(int32_t index) const {
    if (index < 0 || consumers_[static_cast<size_t>(index)].size() != 1) return nullptr;
    return consumers_[static_cast<size_t>(index)].front();
  }

  // A constant, given as such or decoded to fp32 first.
  const TfliteTensorView* constant_behind(int32_t index) const {
    const TfliteOperatorView* op = producer(index);
    const TfliteTensorView* found = tensor(is(op, TfliteOp::Dequantize) && !op->inputs.empty() ? op->inputs[0] : index);
    return found != nullptr && found->is_constant() ? found : nullptr;
  }

  // The scale of int8 codes, 0 for anything else.
  float scale_of(int32_t index) const {
    const TfliteTensorView* found = tensor(index);
    if (found == nullptr || found->type != TfliteType::Int8 || found->scales.size() != 1) return 0;
    return found->scales.front();
  }

  // The scalar that `op` multiplies by, if it does.
  std::optional<float> multiplier(const TfliteOperatorView* op) const {
    if (!is(op, TfliteOp::Mul) || op->inputs.size() != 2 || op->outputs.size() != 1) return std::nullopt;
    const TfliteTensorView* factor = tensor(op->inputs[1]);
    if (factor == nullptr || !factor->is_constant() || factor->type != TfliteType::Float32 || factor->elements() != 1) {
      return std::nullopt;
    }
    float value;
    std::memcpy(&value, factor->content.data(), sizeof(value));
    return value;
  }

  LitertlmLinear trace(const TfliteOperatorView& op, const TfliteTensorView& weight) const {
    LitertlmLinear linear{&weight};
    const int32_t x = op.inputs[0];
    int32_t y = op.outputs[0];
    linear.edges = {scale_of(x), scale_of(y)};
    if (!weight.scales.empty()) {
      if ((linear.edges.input == 0) != (linear.edges.output == 0)) {
        fail(where_, ": ", weight.name, " is quantized at one end only");
      }
      return linear;
    }
    const TfliteOperatorView* before = producer(x);
    if (is(before, TfliteOp::Dequantize) && !before->inputs.empty()) linear.edges.input = scale_of(before->inputs[0]);
    const TfliteOperatorView* after = consumer(y);
    // What goes on into TANH is the soft-cap of the logits.
    if (const auto factor = multiplier(after); factor && !is(consumer(after->outputs[0]), TfliteOp::Tanh)) {
      linear.factor = *factor;
      y = after->outputs[0];
      after = consumer(y);
    }
    if (is(after, TfliteOp::Quantize) && !after->outputs.empty()) linear.edges.output = scale_of(after->outputs[0]);
    return linear;
  }

  const TfliteGraphView& graph_;
  const std::string& where_;
  std::vector<const TfliteOperatorView*> producers_;
  std::vector<std::vector<const TfliteOperatorView*>> consumers_;
};

}  // namespace

std::map<std::string, LitertlmLinear, std::less<>> linears_of(const TfliteGraphView& graph, const std::string& where) {
  return Tracer(graph, where).linears();
}

}  // namespace qat
