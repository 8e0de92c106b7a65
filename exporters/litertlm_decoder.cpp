#include "exporters/litertlm_decoder.h"

#include <cmath>
#include <numeric>

#include "core/error.h"

namespace qat {

namespace {

// Added to scores of positions that a query does not see: their share of the softmax is 0.
constexpr float kHidden = -1e30f;

int32_t narrow(int64_t size) { return static_cast<int32_t>(size); }

const WeightSpec& require(const WeightTable& table, const std::string& name) {
  const WeightSpec* spec = table.find(name);
  QAT_CHECK(spec != nullptr);
  return *spec;
}

GraphValue embed_tokens(LitertlmGraph& graph, const LitertlmWeights& weights, LitertlmConstants& constants,
                        GraphValue ids) {
  const WeightSpec& table = require(weights.table(), "embed_tokens.weight");
  const auto root = std::sqrt(static_cast<float>(weights.config().hidden_size));
  return graph.scale(graph.lookup(ids, graph.constant(constants.codes(table))), root);
}

// -> [tokens, layers, width]
GraphValue embed_per_layer(LitertlmGraph& graph, const LitertlmWeights& weights, LitertlmConstants& constants,
                           GraphValue ids) {
  const Gemma4Config& config = weights.config();
  const WeightSpec& table = require(weights.table(), "embed_tokens_per_layer.weight");
  const int32_t tokens = graph.shape(ids).front(), width = narrow(config.per_layer_input_size);
  std::vector<GraphValue> slices;
  for (int64_t layer = 0; layer < config.layer_count(); ++layer) {
    const GraphValue rows = graph.lookup(ids, graph.constant(constants.slice(table, layer)));
    slices.push_back(graph.reshape(rows, {tokens, 1, width}));
  }
  const GraphValue all = slices.size() == 1 ? slices[0] : graph.concatenate(slices, 1);
  return graph.scale(all, std::sqrt(static_cast<float>(width)));
}

}  // namespace

std::string key_cache_name(int64_t layer) { return "kv_cache_k_" + std::to_string(layer); }
std::string value_cache_name(int64_t layer) { return "kv_cache_v_" + std::to_string(layer); }

void add_embedder(const LitertlmWeights& weights, LitertlmConstants& constants) {
  LitertlmGraph graph(constants, "embedder");
  const GraphValue ids = graph.reshape(graph.input("token_ids", TfliteType::Int32, {1, 1}), {1});
  const GraphValue embedded = embed_tokens(graph, weights, constants, ids);
  graph.output("embeddings", graph.reshape(embedded, {1, 1, narrow(weights.config().hidden_size)}));
  constants.model().graphs.push_back(graph.finish());
}

void add_per_layer_embedder(const LitertlmWeights& weights, LitertlmConstants& constants) {
  const Gemma4Config& config = weights.config();
  LitertlmGraph graph(constants, "per_layer_embedder");
  const GraphValue ids = graph.reshape(graph.input("token_ids", TfliteType::Int32, {1, 1}), {1});
  const GraphValue rows = embed_per_layer(graph, weights, constants, ids);
  graph.output("per_layer_embeddings",
               graph.reshape(rows, {1, 1, narrow(config.layer_count()), narrow(config.per_layer_input_size)}));
  constants.model().graphs.push_back(graph.finish());
}

DecoderGraph::DecoderGraph(const LitertlmWeights& weights, LitertlmConstants& constants, const DecoderShape& shape,
                           std::string key, int64_t tokens, bool with_logits)
    : weights_(weights),
      constants_(constants),
      config_(weights.config()),
      shape_(shape),
      tokens_(narrow(tokens)),
      with_logits_(with_logits),
      epsilon_(static_cast<float>(weights.config().norm_epsilon)),
      graph_(constants, std::move(key)) {}

TfliteGraph DecoderGraph::build() {
  add_inputs();
  GraphValue x = embed();
  if (config_.has_per_layer_inputs()) add_per_layer_inputs(x);
  int64_t last_owner = 0;
  for (const LayerConfig& layer : config_.layers) {
    if (!layer.key_value_donor) last_owner = layer.index;
  }
  for (const LayerConfig& layer : config_.layers) {
    if (!with_logits_ && layer.index == last_owner) {
      update_caches(layer, norm(x, weight(layer, "input_layernorm.weight")));
      break;
    }
    x = run_layer(layer, x);
  }
  if (with_logits_) add_logits(x);
  return graph_.finish();
}

const WeightSpec& DecoderGraph::weight(const std::string& name) const { return require(weights_.table(), name); }

const WeightSpec& DecoderGraph::weight(const LayerConfig& layer, const std::string& name) const {
  return weight("layers." + std::to_string(layer.index) + "." + name);
}

GraphValue DecoderGraph::norm(GraphValue x, const WeightSpec& spec) {
  return graph_.rms_norm(x, graph_.constant(constants_.vector(spec, config_.norm_offset)), epsilon_);
}

GraphValue DecoderGraph::float_linear(GraphValue x, const WeightSpec& spec, float factor) {
  const FloatMatrix matrix = constants_.matrix(spec);
  GraphValue values = graph_.constant(matrix.tensor);
  if (matrix.tensor.type == TfliteType::Float16) values = graph_.dequantize(values);
  return graph_.scale(graph_.fully_connected(x, values), std::ldexp(factor, -matrix.exponent));
}

GraphValue DecoderGraph::linear(GraphValue x, const WeightSpec& spec, float factor) {
  const LinearScales scales = weights_.linear_scales(spec);
  if ((scales.input == 0) != (scales.output == 0)) {
    fail(spec.name, ": static scales ", scales.input, " (input) and ", scales.output,
         " (output): a .litertlm file quantizes both ends of a linear or none");
  }
  const bool is_quantized = weights_.scheme_of(spec).has_row_scales();
  if (scales.input == 0) {
    if (!is_quantized) return float_linear(x, spec, factor);
    return graph_.scale(graph_.fully_connected(x, graph_.constant(constants_.codes(spec))), factor);
  }
  const GraphValue codes = graph_.quantize(x, scales.input, spec.name + ".input");
  if (!is_quantized) {
    const GraphValue result = float_linear(graph_.dequantize(codes), spec, 1);
    return graph_.scale(graph_.dequantize(graph_.quantize(result, scales.output, spec.name + ".output")), factor);
  }
  const GraphValue result =
      graph_.fully_connected(codes, graph_.constant(constants_.codes(spec)), scales.output, spec.name + ".output");
  return graph_.scale(graph_.dequantize(result), factor);
}

void DecoderGraph::add_inputs() {
  if (shape_.takes_tokens) {
    embedded_ = graph_.input("tokens", TfliteType::Int32, {1, tokens_});
  } else {
    embedded_ = graph_.input("embeddings", TfliteType::Float32, {1, tokens_, narrow(config_.hidden_size)});
    if (config_.has_per_layer_inputs()) {
      looked_up_per_layer_ =
          graph_.input("per_layer_embeddings", TfliteType::Float32,
                       {1, tokens_, narrow(config_.layer_count()), narrow(config_.per_layer_input_size)});
    }
  }
  positions_ = graph_.input("input_pos", TfliteType::Int32, {tokens_});
  visible_ = graph_.input("mask", TfliteType::Bool, {1, 1, tokens_, narrow(shape_.context)});
  for (const LayerConfig& layer : config_.layers) {
    if (layer.key_value_donor) continue;
    const CacheScales scales = weights_.cache_scales(layer.index);
    const GraphShape shape{1, narrow(layer.key_value_heads), narrow(shape_.context), narrow(layer.head_dim)};
    const auto cache = [&](const std::string& name, float scale) {
      return graph_.input(name, scale == 0 ? TfliteType::Float32 : TfliteType::Int8, shape, scale);
    };
    const GraphValue keys = cache(key_cache_name(layer.index), scales.key);
    cache_inputs_[layer.index] = {keys, cache(value_cache_name(layer.index), scales.value)};
  }
  const GraphValue zeros = graph_.constant(constants_.integers("zeros", {2}, std::vector<int32_t>{0, 0}));
  const GraphValue zero = graph_.constant(constants_.integers("zero", {1}, std::vector<int32_t>{0}));
  const GraphValue first = tokens_ == 1 ? positions_ : graph_.slice(positions_, {0}, {1});
  cache_begin_ = graph_.concatenate({zeros, first, zero}, 0);
}

// -> [tokens, hidden]
GraphValue DecoderGraph::embed() {
  const int32_t layers = narrow(config_.layer_count()), width = narrow(config_.per_layer_input_size);
  if (!shape_.takes_tokens) {
    if (config_.has_per_layer_inputs()) {
      looked_up_per_layer_ = graph_.reshape(looked_up_per_layer_, {tokens_, layers, width});
    }
    return graph_.reshape(embedded_, {tokens_, narrow(config_.hidden_size)});
  }
  const GraphValue ids = graph_.reshape(embedded_, {tokens_});
  if (config_.has_per_layer_inputs()) looked_up_per_layer_ = embed_per_layer(graph_, weights_, constants_, ids);
  return embed_tokens(graph_, weights_, constants_, ids);
}

void DecoderGraph::add_per_layer_inputs(GraphValue embedded) {
  const float factor = 1.0f / std::sqrt(static_cast<float>(config_.hidden_size));
  GraphValue context = linear(embedded, weight("per_layer_model_projection.weight"), factor);
  context = graph_.reshape(context, {tokens_, narrow(config_.layer_count()), narrow(config_.per_layer_input_size)});
  context = norm(context, weight("per_layer_projection_norm.weight"));
  per_layer_inputs_ = graph_.scale(graph_.add(context, looked_up_per_layer_), 1.0f / std::sqrt(2.0f));
}

DecoderGraph::Rotation DecoderGraph::rotation(const RopeConfig& rope) {
  const auto [known, is_new] =
      rotations_.try_emplace({rope.theta, rope.head_dim, rope.rotated_pairs, rope.factor}, Rotation{});
  if (!is_new) return known->second;
  const std::vector<float> frequencies = rope.frequencies();
  const int32_t pairs = narrow(static_cast<int64_t>(frequencies.size()));
  const std::string name = join("rope/", rope.theta, "/", rope.head_dim, "/", rope.rotated_pairs, "/", rope.factor);
  const GraphValue turns = graph_.constant(constants_.floats(name, {1, 1, pairs}, frequencies));
  const GraphValue angles = graph_.multiply(graph_.to_float(graph_.reshape(positions_, {tokens_, 1, 1})), turns);
  known->second = {graph_.cosine(angles), graph_.sine(angles)};
  return known->second;
}

// x [tokens, heads, head_dim]
GraphValue DecoderGraph::rotate(GraphValue x, const RopeConfig& rope) {
  const Rotation by = rotation(rope);
  GraphShape half = graph_.shape(x);
  half.back() /= 2;
  const GraphValue first = graph_.slice(x, {0, 0, 0}, half), second = graph_.slice(x, {0, 0, half.back()}, half);
  return graph_.concatenate({graph_.subtract(graph_.multiply(first, by.cosine), graph_.multiply(second, by.sine)),
                             graph_.add(graph_.multiply(second, by.cosine), graph_.multiply(first, by.sine))},
                            2);
}

// 0 where a query of the layer sees, kHidden elsewhere: [1, 1, tokens, context]. The runtime's mask hides what comes
// after the query; what lies before its window is hidden here.
GraphValue DecoderGraph::mask(const LayerConfig& layer) {
  const auto [known, is_new] = masks_.try_emplace(layer.window, 0);
  if (!is_new) return known->second;
  if (layer.window == 0) {
    known->second = graph_.select(visible_, graph_.scalar(0), graph_.scalar(kHidden));
    return known->second;
  }
  LayerConfig full = layer;
  full.window = 0;
  std::vector<int32_t> columns(static_cast<size_t>(shape_.context));
  std::iota(columns.begin(), columns.end(), 0);
  const int32_t back[] = {-narrow(layer.window)};
  const GraphValue places =
      graph_.constant(constants_.integers("positions", {1, 1, 1, narrow(shape_.context)}, columns));
  const GraphValue window = graph_.constant(constants_.integers(join("window/", layer.window), {1}, back));
  const GraphValue last_hidden = graph_.add(graph_.reshape(positions_, {1, 1, tokens_, 1}), window);
  const GraphValue masked = graph_.select(graph_.greater(places, last_hidden), mask(full), graph_.scalar(kHidden));
  return masks_[layer.window] = masked;
}

// [tokens, heads * head_dim] -> [1, heads, tokens, head_dim]
GraphValue DecoderGraph::heads(GraphValue x, int64_t count, int64_t head_dim) {
  const GraphShape result{1, narrow(count), tokens_, narrow(head_dim)};
  if (tokens_ == 1 || count == 1) return graph_.reshape(x, result);
  return graph_.reshape(graph_.transpose(x, {1, 0, 2}), result);
}

GraphValue DecoderGraph::update_cache(const std::string& name, GraphValue x, const LayerConfig& layer, float scale) {
  const auto [keys, values] = cache_inputs_.at(layer.index);
  const GraphValue cache = name == key_cache_name(layer.index) ? keys : values;
  GraphValue part = heads(x, layer.key_value_heads, layer.head_dim);
  if (scale != 0) part = graph_.quantize(part, scale, graph_.finish().key + "/" + name + "/new");
  const GraphValue updated = graph_.update(cache, part, cache_begin_);
  graph_.output(name, updated);
  return updated;
}

// Each product decodes the cache for itself: XNNPACK then multiplies by the codes and needs no fp32 copy of them.
GraphValue DecoderGraph::cached(GraphValue cache) { return graph_.is_quantized(cache) ? graph_.dequantize(cache) : cache; }

void DecoderGraph::update_caches(const LayerConfig& layer, GraphValue x) {
  const GraphShape by_head{tokens_, narrow(layer.key_value_heads), narrow(layer.head_dim)};
  GraphValue keys = graph_.reshape(linear(x, weight(layer, "self_attn.k_proj.weight")), by_head);
  GraphValue values =
      layer.value_is_key ? keys : graph_.reshape(linear(x, weight(layer, "self_attn.v_proj.weight")), by_head);
  keys = rotate(norm(keys, weight(layer, "self_attn.k_norm.weight")), layer.rope);
  if (config_.value_norm) values = graph_.rms_norm(values, std::nullopt, epsilon_);
  const CacheScales scales = weights_.cache_scales(layer.index);
  const GraphValue all_keys = update_cache(key_cache_name(layer.index), keys, layer, scales.key);
  caches_[layer.index] = {all_keys, update_cache(value_cache_name(layer.index), values, layer, scales.value)};
}

GraphValue DecoderGraph::attention(const LayerConfig& layer, GraphValue x) {
  const int32_t groups = narrow(layer.key_value_heads), size = narrow(layer.heads / layer.key_value_heads);
  const int32_t context = narrow(shape_.context), width = narrow(layer.head_dim);
  GraphValue queries =
      graph_.reshape(linear(x, weight(layer, "self_attn.q_proj.weight")), {tokens_, narrow(layer.heads), width});
  queries = rotate(norm(queries, weight(layer, "self_attn.q_norm.weight")), layer.rope);
  queries = graph_.scale(queries, static_cast<float>(config_.attention_scale));
  if (!layer.key_value_donor) update_caches(layer, x);
  const Caches& caches = caches_.at(layer.key_value_donor.value_or(layer.index));

  // The heads of a group share keys: they stand below each other as rows of one product.
  queries = graph_.reshape(heads(queries, layer.heads, layer.head_dim), {1, groups, size * tokens_, width});
  GraphValue scores = graph_.batch_multiply(queries, cached(caches.keys), true);
  scores = graph_.add(graph_.reshape(scores, {groups, size, tokens_, context}), mask(layer));
  const GraphValue shares = graph_.reshape(graph_.softmax(scores), {1, groups, size * tokens_, context});
  GraphValue mixed = graph_.batch_multiply(shares, cached(caches.values), false);
  if (tokens_ > 1 && layer.heads > 1) {
    mixed = graph_.transpose(graph_.reshape(mixed, {narrow(layer.heads), tokens_, width}), {1, 0, 2});
  }
  mixed = graph_.reshape(mixed, {tokens_, narrow(layer.query_width())});
  return linear(mixed, weight(layer, "self_attn.o_proj.weight"));
}

GraphValue DecoderGraph::mlp(const LayerConfig& layer, GraphValue x) {
  const GraphValue gate = graph_.gelu(linear(x, weight(layer, "mlp.gate_proj.weight")));
  const GraphValue up = linear(x, weight(layer, "mlp.up_proj.weight"));
  return linear(graph_.multiply(gate, up), weight(layer, "mlp.down_proj.weight"));
}

GraphValue DecoderGraph::run_layer(const LayerConfig& layer, GraphValue x) {
  GraphValue branch = attention(layer, norm(x, weight(layer, "input_layernorm.weight")));
  x = graph_.add(x, norm(branch, weight(layer, "post_attention_layernorm.weight")));
  branch = mlp(layer, norm(x, weight(layer, "pre_feedforward_layernorm.weight")));
  x = graph_.add(x, norm(branch, weight(layer, "post_feedforward_layernorm.weight")));
  if (config_.has_per_layer_inputs()) {
    const int32_t width = narrow(config_.per_layer_input_size);
    GraphValue inputs = graph_.slice(per_layer_inputs_, {0, narrow(layer.index), 0}, {tokens_, 1, width});
    inputs = graph_.reshape(inputs, {tokens_, width});
    const GraphValue gate = graph_.gelu(linear(x, weight(layer, "per_layer_input_gate.weight")));
    branch = linear(graph_.multiply(gate, inputs), weight(layer, "per_layer_projection.weight"));
    x = graph_.add(x, norm(branch, weight(layer, "post_per_layer_input_norm.weight")));
  }
  if (!config_.has_layer_scalar) return x;
  return graph_.multiply(x, graph_.constant(constants_.vector(weight(layer, "layer_scalar"))));
}

void DecoderGraph::add_logits(GraphValue x) {
  x = graph_.reshape(norm(x, weight("norm.weight")), {1, tokens_, narrow(config_.hidden_size)});
  GraphValue logits = linear(x, weight(shape_.head_is_table ? "embed_tokens.weight" : "lm_head.weight"));
  if (config_.final_logit_softcap != 0) {
    const auto cap = static_cast<float>(config_.final_logit_softcap);
    logits = graph_.scale(graph_.tanh(graph_.scale(logits, 1.0f / cap)), cap);
  }
  graph_.output("logits", logits);
}

}  // namespace qat
