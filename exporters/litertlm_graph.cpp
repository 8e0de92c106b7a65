#include "exporters/litertlm_graph.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "core/error.h"

namespace qat {

namespace {

GraphShape broadcast(GraphShape a, GraphShape b) {
  if (a.size() < b.size()) std::swap(a, b);
  for (size_t i = 0; i < b.size(); ++i) {
    int32_t& size = a[a.size() - 1 - i];
    const int32_t other = b[b.size() - 1 - i];
    QAT_CHECK(size == other || size == 1 || other == 1);
    size = std::max(size, other);
  }
  return a;
}

}  // namespace

GraphValue LitertlmGraph::tensor(TfliteType type, GraphShape shape, float scale, const std::string& name) {
  TfliteTensor facts{
      name.empty() ? graph_.key + "/" + std::to_string(graph_.tensors.size()) : name, type, std::move(shape), {}, {}};
  if (scale != 0) facts.quantization = constants_.one_scale(scale);
  graph_.tensors.push_back(std::move(facts));
  return static_cast<GraphValue>(graph_.tensors.size() - 1);
}

GraphValue LitertlmGraph::input(const std::string& name, TfliteType type, GraphShape shape, float scale) {
  const GraphValue value = tensor(type, std::move(shape), scale, graph_.key + "/" + name);
  graph_.inputs.emplace_back(name, value);
  return value;
}

void LitertlmGraph::output(const std::string& name, GraphValue value) { graph_.outputs.emplace_back(name, value); }

GraphValue LitertlmGraph::constant(const TfliteTensor& facts) {
  const auto [known, is_new] = known_constants_.try_emplace(facts.name, static_cast<GraphValue>(graph_.tensors.size()));
  if (is_new) graph_.tensors.push_back(facts);
  return known->second;
}

GraphValue LitertlmGraph::scalar(float value) {
  std::array<char, 32> digits{};  // the shortest that tell this number from its neighbours
  const auto end = std::to_chars(digits.begin(), digits.end(), value).ptr;
  return constant(constants_.floats("constant/" + std::string(digits.begin(), end), {1}, std::span(&value, 1)));
}

GraphValue LitertlmGraph::integers(const GraphShape& values) {
  std::string name = "integers";
  for (const int32_t value : values) name += "/" + std::to_string(value);
  return constant(constants_.integers(name, {static_cast<int32_t>(values.size())}, values));
}

GraphValue LitertlmGraph::apply(TfliteOp op, std::vector<GraphValue> inputs, GraphValue output, TfliteSettings settings,
                                int32_t version) {
  graph_.operators.push_back({op, version, std::move(inputs), {output}, settings});
  return output;
}

GraphValue LitertlmGraph::unary(TfliteOp op, GraphValue x, TfliteSettings settings) {
  return apply(op, {x}, tensor(type(x), shape(x)), settings);
}

GraphValue LitertlmGraph::binary(TfliteOp op, GraphValue a, GraphValue b) {
  return apply(op, {a, b}, tensor(type(a), broadcast(shape(a), shape(b))));
}

GraphValue LitertlmGraph::reshape(GraphValue x, GraphShape wanted) {
  if (shape(x) == wanted) return x;
  const GraphValue sizes = integers(wanted);
  return apply(TfliteOp::Reshape, {x, sizes}, tensor(type(x), std::move(wanted)));
}

GraphValue LitertlmGraph::transpose(GraphValue x, const GraphShape& order) {
  GraphShape result;
  for (const int32_t dimension : order) result.push_back(shape(x)[static_cast<size_t>(dimension)]);
  return apply(TfliteOp::Transpose, {x, integers(order)}, tensor(type(x), result));
}

GraphValue LitertlmGraph::slice(GraphValue x, const GraphShape& begin, const GraphShape& size) {
  return apply(TfliteOp::Slice, {x, integers(begin), integers(size)}, tensor(type(x), size));
}

GraphValue LitertlmGraph::concatenate(const std::vector<GraphValue>& parts, int32_t axis) {
  GraphShape result = shape(parts.front());
  for (size_t i = 1; i < parts.size(); ++i)
    result[static_cast<size_t>(axis)] += shape(parts[i])[static_cast<size_t>(axis)];
  return apply(TfliteOp::Concatenation, parts, tensor(type(parts.front()), result), ConcatenationSettings{axis});
}

GraphValue LitertlmGraph::to_float(GraphValue integers) {
  return apply(TfliteOp::Cast, {integers}, tensor(TfliteType::Float32, shape(integers)),
               CastSettings{TfliteType::Int32, TfliteType::Float32});
}

GraphValue LitertlmGraph::greater(GraphValue a, GraphValue b) {
  return apply(TfliteOp::Greater, {a, b}, tensor(TfliteType::Bool, broadcast(shape(a), shape(b))));
}

GraphValue LitertlmGraph::select(GraphValue condition, GraphValue yes, GraphValue no) {
  return apply(TfliteOp::SelectV2, {condition, yes, no}, tensor(type(yes), shape(condition)));
}

GraphValue LitertlmGraph::batch_multiply(GraphValue a, GraphValue b, bool transposed) {
  GraphShape result = shape(a);
  result.back() = *(shape(b).end() - (transposed ? 2 : 1));
  return apply(TfliteOp::BatchMatmul, {a, b}, tensor(TfliteType::Float32, result),
               BatchMatmulSettings{false, transposed});
}

GraphValue LitertlmGraph::rms_norm(GraphValue x, std::optional<GraphValue> weight, float epsilon) {
  GraphShape one = shape(x);
  one.back() = 1;
  const GraphValue axis = integers({static_cast<int32_t>(one.size()) - 1});
  const GraphValue mean =
      apply(TfliteOp::Mean, {multiply(x, x), axis}, tensor(TfliteType::Float32, one), MeanSettings{});
  const GraphValue result = multiply(x, unary(TfliteOp::Rsqrt, add(mean, scalar(epsilon))));
  return weight ? multiply(result, *weight) : result;
}

GraphValue LitertlmGraph::quantize(GraphValue x, float scale, const std::string& name) {
  const auto [known, is_new] = quantized_.try_emplace({x, scale}, 0);
  if (is_new) known->second = apply(TfliteOp::Quantize, {x}, tensor(TfliteType::Int8, shape(x), scale, name));
  return known->second;
}

GraphValue LitertlmGraph::dequantize(GraphValue x) {
  const int32_t version = type(x) == TfliteType::Float16 ? 3 : 2;
  return apply(TfliteOp::Dequantize, {x}, tensor(TfliteType::Float32, shape(x)), {}, version);
}

GraphValue LitertlmGraph::fully_connected(GraphValue x, GraphValue weight, float scale, const std::string& name) {
  GraphShape result = shape(x);
  result.back() = shape(weight).front();
  const TfliteType result_type = scale != 0 ? TfliteType::Int8 : TfliteType::Float32;
  return apply(TfliteOp::FullyConnected, {x, weight, -1}, tensor(result_type, result, scale, name),
               FullyConnectedSettings{}, 4);
}

GraphValue LitertlmGraph::lookup(GraphValue indices, GraphValue table) {
  return apply(TfliteOp::EmbeddingLookup, {indices, table},
               tensor(TfliteType::Float32, {shape(indices).front(), shape(table).back()}));
}

GraphValue LitertlmGraph::update(GraphValue x, GraphValue part, GraphValue begin) {
  const TfliteTensor& facts = graph_.tensors[static_cast<size_t>(x)];
  TfliteTensor updated{facts.name + "/updated", facts.type, facts.shape, {}, facts.quantization};
  graph_.tensors.push_back(std::move(updated));
  return apply(TfliteOp::DynamicUpdateSlice, {x, part, begin}, static_cast<GraphValue>(graph_.tensors.size() - 1));
}

}  // namespace qat
