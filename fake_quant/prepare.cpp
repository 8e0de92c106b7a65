#include "fake_quant/prepare.h"

#include <map>
#include <optional>

#include "core/error.h"
#include "fake_quant/block_values.h"
#include "quant/key_value_rotation.h"

namespace qat {

namespace {

// What transformers' and LiteRT's mobile checkpoints have for values of unit RMS: clipped at 6 (mobile_format.md 1.5).
constexpr float kNormedValueScale = 6.0f / 127.0f;

// Scales that somebody brings for a weight whose plan says `stored`; none where they may be found instead.
std::span<const Float16> brought_scales(const WeightSpec& weight, const WeightPlan& rule, const KnownScales& known) {
  if (known.block_method == BlockScaleMethod::Searched) return {};
  const auto scales = known.blocks ? known.blocks(weight.name) : std::span<const Float16>();
  if (scales.empty() && known.block_method == BlockScaleMethod::Learned) return {};
  const int64_t blocks = weight.elements() / scheme(rule.scheme).block_size;
  if (static_cast<int64_t>(scales.size()) != blocks) {
    fail(weight.name, ": the plan wants stored scales, ", blocks, " of them; found ", scales.size());
  }
  return scales;
}

void attach_block_weight(FakeQuantSet& set, const WeightSpec& weight, const WeightPlan& rule,
                         const KnownScales& known) {
  Projection& projection = set.model->projection(weight.name);
  const bool is_stored = rule.scales == ScaleSource::Stored;
  const auto scales = is_stored ? brought_scales(weight, rule, known) : std::span<const Float16>();
  auto quantizer = std::make_shared<WeightFakeQuantizer>(weight.name, rule.scheme, scales, set.model->device());
  if (is_stored && known.block_method == BlockScaleMethod::Searched) quantizer->search_scales();
  if (is_stored && known.block_method == BlockScaleMethod::Learned) {
    const auto loan = scales.empty() ? projection.borrow_master() : nullptr;
    const at::Tensor master = projection.merged_weight();
    const at::Tensor start = scales.empty() ? searched_block_scales(master) : quantizer->stored_scales(master);
    quantizer->learn_scales(start, /*given=*/!scales.empty());
  }
  projection.weight_transform = quantizer;
  set.weights.push_back(std::move(quantizer));
}

void attach_row_weight(FakeQuantSet& set, const WeightSpec& weight, const WeightPlan& rule, const KnownScales& known) {
  Projection& projection = set.model->projection(weight.name);
  auto quantizer =
      std::make_shared<RowWeightFakeQuantizer>(weight, rule.scheme, rule.one_scale_per_row, set.model->device());
  const std::span<const float> scales = known.rows ? known.rows(weight.name) : std::span<const float>();
  if (scales.empty()) {
    const auto loan = projection.borrow_master();
    quantizer->find_scales(projection.merged_weight(), known.row_method);
  } else {
    QAT_CHECK(static_cast<int64_t>(scales.size()) == weight.row_scales());
    quantizer->give_scales(scales);
  }
  projection.weight_transform = quantizer;
  set.row_weights.push_back(std::move(quantizer));
}

// The edges of linears: inputs are shared under their name, outputs are each weight's own.
class EdgeBuilder {
 public:
  EdgeBuilder(FakeQuantSet& set, const StaticScales* scales)
      : set_(set), scales_(scales == nullptr ? StaticScales() : *scales) {}

  void add(const WeightSpec& weight, const WeightPlan& rule) {
    const LinearScales known = scales_.of_linear(weight.name);
    Projection& projection = set_.model->projection(weight.name);
    if (rule.quantizes_input) {
      const auto [found, is_new] = inputs_.try_emplace(weight.input_name(), set_.edges.size());
      if (is_new) add_edge(StaticEdge::Kind::Input, weight.input_name() + ".input", weight.columns(), known.input);
      StaticEdge& edge = set_.edges[found->second];
      if (known.input > 0 && edge.quantizer->scale_value() != known.input) {
        fail(weight.name, ": input scale ", known.input, ", but ", edge.weights.front(), " reads the same input with ",
             edge.quantizer->scale_value());
      }
      edge.weights.push_back(weight.name);
      edge.quantizer->add_user();
      projection.input_transform = edge.quantizer;
    }
    if (rule.quantizes_output) {
      add_edge(StaticEdge::Kind::Output, weight.module_name() + ".output", weight.rows(), known.output);
      set_.edges.back().weights.push_back(weight.name);
      projection.output_transform = set_.edges.back().quantizer;
    }
  }

  void add_cache(const LayerConfig& layer, bool values_are_normed) {
    CacheScales known = scales_.of_cache(layer.index);
    if (known.value == 0 && values_are_normed) known.value = kNormedValueScale;
    const std::string attention = "layers." + std::to_string(layer.index) + ".self_attn.";
    const auto add_part = [&](StaticEdge::Kind kind, const char* name, float scale) {
      add_edge(kind, attention + name, layer.key_value_width(), scale);
      set_.edges.back().layer = layer.index;
      return set_.edges.back().quantizer;
    };
    set_.model->key_transform(layer.index) = add_part(StaticEdge::Kind::KeyCache, "key_cache", known.key);
    set_.model->value_transform(layer.index) = add_part(StaticEdge::Kind::ValueCache, "value_cache", known.value);
  }

 private:
  void add_edge(StaticEdge::Kind kind, const std::string& name, int64_t width, float scale) {
    StaticEdge edge{kind, {}, -1, width, std::make_shared<StaticFakeQuantizer>(name, set_.model->device())};
    if (scale > 0) edge.quantizer->set_scale(scale, /*given=*/true);
    set_.edges.push_back(std::move(edge));
  }

  FakeQuantSet& set_;
  StaticScales scales_;
  std::map<std::string, size_t> inputs_;
};

void attach_block_caches(FakeQuantSet& set) {
  Gemma4Model& model = *set.model;
  for (const LayerConfig& layer : model.config().layers) {
    if (layer.key_value_donor) continue;  // shared layers read what the donor cached
    const std::string name = "layers." + std::to_string(layer.index) + ".self_attn.";
    const auto rotation = key_value_rotation(model.config().layers.front().head_dim, layer.head_dim);
    auto key = std::make_shared<KeyValueFakeQuantizer>(name + "key_cache", rotation.key, layer.head_dim);
    auto value = std::make_shared<KeyValueFakeQuantizer>(name + "value_cache", rotation.value, layer.head_dim);
    model.key_transform(layer.index) = key;
    model.value_transform(layer.index) = value;
    set.block_caches.push_back({layer.index, std::move(key), std::move(value)});
  }
}

}  // namespace

KnownScales KnownScales::of(const ModelFolder& folder) {
  KnownScales known;
  known.blocks = [&folder](const std::string& weight) { return folder.stored_scales(weight); };
  known.rows = [&folder](const std::string& weight) { return folder.row_scales(weight); };
  known.edges = &folder.static_scales();
  return known;
}

FakeQuantSet prepare(Gemma4Model& model, const ResolvedPlan& plan, const KnownScales& known) {
  FakeQuantSet set;
  set.model = &model;
  EdgeBuilder edges(set, known.edges);
  for (const WeightSpec& weight : model.weights().weights()) {
    const WeightPlan& rule = plan.of(weight.name);
    if (!scheme(rule.scheme).is_quantized()) continue;
    if (scheme(rule.scheme).has_row_scales()) {
      attach_row_weight(set, weight, rule, known);
      edges.add(weight, rule);
    } else {
      attach_block_weight(set, weight, rule, known);
    }
  }
  if (plan.key_value_cache == Scheme::Q8_0) attach_block_caches(set);
  if (plan.key_value_cache == Scheme::Int8) {
    for (const LayerConfig& layer : model.config().layers) {
      if (!layer.key_value_donor) edges.add_cache(layer, model.config().value_norm);
    }
  }
  return set;
}

}  // namespace qat
