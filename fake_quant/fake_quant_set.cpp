#include "fake_quant/fake_quant_set.h"

#include <ATen/ops/arange.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <type_traits>

#include "core/error.h"
#include "core/sha256.h"
#include "fake_quant/block_values.h"
#include "fake_quant/frozen_values.h"
#include "fake_quant/tensor_values.h"
#include "quant/grid.h"

namespace qat {

void FakeQuantSet::enable(QuantizedParts parts) {
  enabled_ = parts;
  for (const auto& quantizer : weights) quantizer->set_enabled(parts.weights);
  for (const auto& quantizer : row_weights) quantizer->set_enabled(parts.weights);
  for (const StaticEdge& edge : edges) edge.quantizer->set_enabled(edge.is_cache() ? parts.caches : parts.activations);
  for (const BlockCache& cache : block_caches) {
    cache.key->set_enabled(parts.caches);
    cache.value->set_enabled(parts.caches);
  }
}

void FakeQuantSet::keep(Keep kept) {
  for (const auto& quantizer : weights) quantizer->set_keep(kept);
  for (const auto& quantizer : row_weights) quantizer->set_keep(kept);
}

void FakeQuantSet::changed() {
  for (const auto& quantizer : weights) quantizer->changed();
  for (const auto& quantizer : row_weights) quantizer->changed();
  for (const StaticEdge& edge : edges) edge.quantizer->scale().changed();
}

namespace {

// Whether the master, an adapter of it or its scales (null: none that could) move in training.
bool learns(const Projection& projection, const LearnedScale* scale) {
  const bool scale_learns = scale != nullptr && scale->log_change().requires_grad();
  return projection.weight.requires_grad() || projection.weight_delta != nullptr || scale_learns;
}

}  // namespace

void FakeQuantSet::learned_weights_changed() {
  for (const auto& quantizer : weights) {
    if (learns(model->projection(quantizer->name()), quantizer->learned_scale())) quantizer->changed();
  }
  for (const auto& quantizer : row_weights) {
    if (learns(model->projection(quantizer->name()), &quantizer->scale())) quantizer->changed();
  }
  for (const StaticEdge& edge : edges) edge.quantizer->scale().changed();
}

void FakeQuantSet::keep_frozen_head_in(const std::filesystem::path& folder) {
  Projection& head = model->projection(model->head().name);
  const auto keep = [&](const auto& quantizer, const LearnedScale* scale) {
    if (quantizer->name() != head.name || learns(head, scale) || !head.weight.is_cpu()) return;
    head.weight_transform = std::make_shared<FrozenValues<std::decay_t<decltype(*quantizer)>>>(quantizer, folder);
  };
  for (const auto& quantizer : weights) keep(quantizer, quantizer->learned_scale());
  for (const auto& quantizer : row_weights) keep(quantizer, &quantizer->scale());
}

void FakeQuantSet::check_all_fired() const {
  std::string silent;
  const auto check = [&](const auto& quantizer, bool enabled) {
    if (enabled && !quantizer.has_fired()) silent += "\n  " + quantizer.name();
  };
  for (const auto& quantizer : weights) check(*quantizer, enabled_.weights);
  for (const auto& quantizer : row_weights) check(*quantizer, enabled_.weights);
  for (const StaticEdge& edge : edges) check(*edge.quantizer, edge.is_cache() ? enabled_.caches : enabled_.activations);
  for (const BlockCache& cache : block_caches) {
    check(*cache.key, enabled_.caches);
    check(*cache.value, enabled_.caches);
  }
  if (silent.empty()) return;
  fail("the plan quantizes these, but no forward pass ever used their quantizers, so nothing was trained for them:",
       silent);
}

namespace {

constexpr int64_t kRowsPerPiece = 4096;

void update(Sha256& digest, const at::Tensor& values, at::ScalarType type) {
  const at::Tensor bits = values.to(at::kCPU, type).contiguous();
  digest.update(bytes_of(bits));
}

// What the model's slot hands to the GEMM, read through the slot itself. Tables come by rows, as lookups read them.
std::string digest_of_values(const Projection& projection, const WeightSpec& weight, at::ScalarType type,
                             at::Device device) {
  const c10::NoGradGuard no_grad;
  Sha256 digest;
  if (is_table(weight.role)) {
    for (int64_t first = 0; first < weight.rows(); first += kRowsPerPiece) {
      const int64_t end = std::min(first + kRowsPerPiece, weight.rows());
      const at::Tensor rows = at::arange(first, end, at::TensorOptions(at::kLong).device(device));
      update(digest, projection.effective_rows(rows), type);
    }
  } else {
    update(digest, projection.effective_weight(), type);
  }
  return digest.finish();
}

}  // namespace

std::map<std::string, WeightDigest, std::less<>> FakeQuantSet::digests() const {
  std::map<std::string, WeightDigest, std::less<>> result;
  const auto add = [&](const auto& quantizer, at::ScalarType type) {
    const Projection& projection = model->projection(quantizer.name());
    const auto loan = projection.borrow_master();
    WeightDigest digest = quantizer.digest(projection.merged_weight());
    digest.values = digest_of_values(projection, *model->weights().find(quantizer.name()), type, model->device());
    result.emplace(quantizer.name(), std::move(digest));
  };
  for (const auto& quantizer : weights) add(*quantizer, at::kBFloat16);
  for (const auto& quantizer : row_weights) add(*quantizer, at::kFloat);
  return result;
}

std::map<std::string, at::Tensor, std::less<>> FakeQuantSet::row_scales() const {
  std::map<std::string, at::Tensor, std::less<>> result;
  for (const auto& quantizer : row_weights) result.emplace(quantizer->name(), on_cpu(quantizer->stored_scales()));
  return result;
}

std::map<std::string, at::Tensor, std::less<>> FakeQuantSet::block_scales() const {
  std::map<std::string, at::Tensor, std::less<>> result;
  for (const auto& quantizer : weights) {
    const Projection& projection = model->projection(quantizer->name());
    const auto loan = quantizer->searches_scales() ? projection.borrow_master() : nullptr;
    const at::Tensor scales = quantizer->stored_scales(projection.merged_weight());
    if (scales.defined()) result.emplace(quantizer->name(), on_cpu(scales));
  }
  return result;
}

std::vector<LearnedScale*> FakeQuantSet::scales() {
  std::vector<LearnedScale*> result;
  for (const auto& quantizer : weights) {
    if (LearnedScale* scale = quantizer->learned_scale()) result.push_back(scale);
  }
  for (const auto& quantizer : row_weights) result.push_back(&quantizer->scale());
  for (const StaticEdge& edge : edges) result.push_back(&edge.quantizer->scale());
  return result;
}

StaticScales FakeQuantSet::static_scales() const {
  StaticScales result;
  for (const StaticEdge& edge : edges) {
    const float scale = edge.quantizer->scale_value();
    for (const std::string& weight : edge.weights) {
      (edge.kind == StaticEdge::Kind::Input ? result.linears[weight].input : result.linears[weight].output) = scale;
    }
    if (edge.kind == StaticEdge::Kind::KeyCache) result.caches[edge.layer].key = scale;
    if (edge.kind == StaticEdge::Kind::ValueCache) result.caches[edge.layer].value = scale;
  }
  return result;
}

void FakeQuantSet::find_weight_scales(RowScaleMethod method) {
  for (const auto& quantizer : weights) {
    const LearnedScale* scale = quantizer->learned_scale();
    if (scale == nullptr || scale->is_given()) continue;
    const Projection& projection = model->projection(quantizer->name());
    const auto loan = projection.borrow_master();
    const at::Tensor master = projection.merged_weight();
    quantizer->learn_scales(searched_block_scales(master), /*given=*/false);
  }
  for (const auto& quantizer : row_weights) {
    if (quantizer->scale().is_given()) continue;
    const Projection& projection = model->projection(quantizer->name());
    const auto loan = projection.borrow_master();
    quantizer->find_scales(projection.merged_weight(), method);
  }
}

bool FakeQuantSet::needs_calibration() const {
  return std::any_of(edges.begin(), edges.end(),
                     [](const StaticEdge& edge) { return !edge.quantizer->scale().is_set(); });
}

void FakeQuantSet::start_calibration(const at::Tensor* first_rows) {
  for (const StaticEdge& edge : edges) edge.quantizer->start_observing(first_rows);
}

namespace {

float scale_of(const StaticFakeQuantizer::Observation& seen, const CalibrationRule& rule) {
  // A document's first token counts as much as any other where squared error decides, and would decide a percentile
  // alone.
  MagnitudeHistogram all = seen.rows;
  all.add(seen.first_rows);
  switch (rule.kind) {
    case CalibrationRule::Kind::LeastError:
      return all.least_error_scale();
    case CalibrationRule::Kind::Percentile:
      return (seen.rows.count() > 0 ? seen.rows : all).percentile(rule.percentile) / grid::kActivationMax;
    case CalibrationRule::Kind::Maximum:
      return all.largest() / grid::kActivationMax;
  }
  QAT_CHECK(false);
  return 0;
}

}  // namespace

std::vector<CalibratedEdge> FakeQuantSet::finish_calibration(const CalibrationRule& rule, QuantizedParts parts) {
  std::vector<CalibratedEdge> result;
  std::string silent;
  for (const StaticEdge& edge : edges) {
    const auto seen = edge.quantizer->take_observation();
    const std::string& name = edge.quantizer->name();
    const float scale = seen ? scale_of(*seen, rule) : 0;
    if (!(scale > 0)) {
      silent += "\n  " + name;
      continue;
    }
    const bool wanted = edge.is_cache() ? parts.caches : parts.activations;
    if (wanted && !edge.quantizer->scale().is_given()) edge.quantizer->set_scale(scale, /*given=*/false);
    result.push_back({name, edge.quantizer->scale_value(), seen->rows.largest(), seen->first_rows.largest()});
  }
  if (silent.empty()) return result;
  fail("calibration saw no data, or nothing but zeros, at these edges, so they have no scale:", silent);
}

void FakeQuantSet::start_statistics() {
  statistics_.clear();
  statistics_.reserve(edges.size());
  for (const StaticEdge& edge : edges) {
    statistics_.push_back({edge.quantizer->name(), {}, {}});
    edge.quantizer->measure_into(&statistics_.back().statistics);
  }
}

std::vector<NamedStatistics> FakeQuantSet::stop_statistics() {
  for (const StaticEdge& edge : edges) edge.quantizer->measure_into(nullptr);
  std::vector<NamedStatistics> result = std::move(statistics_);
  std::erase_if(result, [](const NamedStatistics& entry) { return entry.statistics.count() == 0; });
  const auto add = [&](const auto& quantizer, const LearnedScale* scale) {
    const Projection& projection = model->projection(quantizer->name());
    const auto loan = projection.borrow_master();
    WeightSample sample = quantizer->sample(projection.merged_weight());
    if (!learns(projection, scale)) sample.codes.clear();
    result.push_back({quantizer->name(), sample.statistics, std::move(sample.codes)});
  };
  for (const auto& quantizer : weights) add(quantizer, quantizer->learned_scale());
  for (const auto& quantizer : row_weights) add(quantizer, &quantizer->scale());
  return result;
}

}  // namespace qat
