// A TFLite graph put together operation by operation; shapes follow from the operands.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "exporters/litertlm_constants.h"
#include "io/tflite.h"

namespace qat {

// A tensor of the graph that is being built.
using GraphValue = int32_t;
using GraphShape = std::vector<int32_t>;

class LitertlmGraph {
 public:
  // `key` becomes the signature's.
  LitertlmGraph(LitertlmConstants& constants, std::string key) : constants_(constants) { graph_.key = std::move(key); }

  // `scale` 0: not quantized.
  GraphValue input(const std::string& name, TfliteType type, GraphShape shape, float scale = 0);
  void output(const std::string& name, GraphValue value);
  GraphValue constant(const TfliteTensor& tensor);
  GraphValue scalar(float value);

  const GraphShape& shape(GraphValue value) const { return graph_.tensors[static_cast<size_t>(value)].shape; }
  bool is_quantized(GraphValue value) const { return type(value) == TfliteType::Int8; }

  GraphValue reshape(GraphValue x, GraphShape shape);
  GraphValue transpose(GraphValue x, const GraphShape& order);
  GraphValue slice(GraphValue x, const GraphShape& begin, const GraphShape& size);
  GraphValue concatenate(const std::vector<GraphValue>& parts, int32_t axis);
  // Operands broadcast.
  GraphValue add(GraphValue a, GraphValue b) { return binary(TfliteOp::Add, a, b); }
  GraphValue subtract(GraphValue a, GraphValue b) { return binary(TfliteOp::Sub, a, b); }
  GraphValue multiply(GraphValue a, GraphValue b) { return binary(TfliteOp::Mul, a, b); }
  // Nothing where the factor is 1.
  GraphValue scale(GraphValue x, float factor) { return factor == 1 ? x : multiply(x, scalar(factor)); }
  GraphValue tanh(GraphValue x) { return unary(TfliteOp::Tanh, x); }
  GraphValue cosine(GraphValue x) { return unary(TfliteOp::Cos, x); }
  GraphValue sine(GraphValue x) { return unary(TfliteOp::Sin, x); }
  GraphValue gelu(GraphValue x) { return unary(TfliteOp::Gelu, x, GeluSettings{}); }
  GraphValue softmax(GraphValue x) { return unary(TfliteOp::Softmax, x, SoftmaxSettings{}); }
  GraphValue to_float(GraphValue integers);
  GraphValue greater(GraphValue a, GraphValue b);
  GraphValue select(GraphValue condition, GraphValue yes, GraphValue no);
  // a [..., m, k] with b [..., k, n], or [..., n, k] if `transposed`.
  GraphValue batch_multiply(GraphValue a, GraphValue b, bool transposed);
  // x / sqrt(mean(x²) + epsilon) along the last dimension, times `weight` if there is one.
  GraphValue rms_norm(GraphValue x, std::optional<GraphValue> weight, float epsilon);

  // One QUANTIZE for all who ask for the same value at the same scale; `name` is the first one's.
  GraphValue quantize(GraphValue x, float scale, const std::string& name = {});
  GraphValue dequantize(GraphValue x);
  // x [..., in] with codes or values [out, in] -> [..., out]; `scale` of an int8 result, 0 for fp32.
  GraphValue fully_connected(GraphValue x, GraphValue weight, float scale = 0, const std::string& name = {});
  // Rows of a table: indices [n] -> [n, width].
  GraphValue lookup(GraphValue indices, GraphValue table);
  // `x` with `part` written at the position `begin` [rank].
  GraphValue update(GraphValue x, GraphValue part, GraphValue begin);

  const TfliteGraph& finish() const { return graph_; }

 private:
  GraphValue tensor(TfliteType type, GraphShape shape, float scale = 0, const std::string& name = {});
  GraphValue integers(const GraphShape& values);
  GraphValue unary(TfliteOp op, GraphValue x, TfliteSettings settings = {});
  GraphValue binary(TfliteOp op, GraphValue a, GraphValue b);
  GraphValue apply(TfliteOp op, std::vector<GraphValue> inputs, GraphValue output, TfliteSettings settings = {},
                   int32_t version = 1);
  TfliteType type(GraphValue value) const { return graph_.tensors[static_cast<size_t>(value)].type; }

  LitertlmConstants& constants_;
  TfliteGraph graph_;
  std::map<std::string, GraphValue> known_constants_;
  std::map<std::pair<GraphValue, float>, GraphValue> quantized_;
};

}  // namespace qat
