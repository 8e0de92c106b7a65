#include "trainers/calibration.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "core/error.h"
#include "core/terminal.h"
#include "trainers/schedule.h"

namespace qat {

namespace {

CalibrationRule rule_of(const CalibrationConfig& config) {
  if (config.method == "percentile") return {CalibrationRule::Kind::Percentile, config.percentile};
  if (config.method == "maximum") return {CalibrationRule::Kind::Maximum};
  return {CalibrationRule::Kind::LeastError};
}

}  // namespace

RowScaleMethod row_scale_method(const QuantizationConfig& config) {
  return config.row_scales == "absolute_max" ? RowScaleMethod::AbsoluteMax : RowScaleMethod::Searched;
}

BlockScaleMethod block_scale_method(const QuantizationConfig& config) {
  if (config.block_scales == "search") return BlockScaleMethod::Searched;
  return config.block_scales == "learned" ? BlockScaleMethod::Learned : BlockScaleMethod::Rule;
}

void find_scales_when_due(const QuantizationConfig& config, int64_t step, const Gemma4Model& model,
                          FakeQuantSet& fake_quant, TrainingData& data) {
  if (step == 0) return;
  const QuantizedParts before = quantized_parts_at(config, step - 1);
  const QuantizedParts now = quantized_parts_at(config, step);
  if (now.weights && !before.weights) fake_quant.find_weight_scales(row_scale_method(config));
  const QuantizedParts starting{false, now.activations && !before.activations, now.caches && !before.caches};
  if ((starting.activations || starting.caches) && !fake_quant.edges.empty()) {
    calibrate(model, fake_quant, data.first_rows(config.calibration.rows), config.calibration, starting);
  }
}

std::vector<CalibratedEdge> calibrate(const Gemma4Model& model, FakeQuantSet& fake_quant,
                                      const std::vector<TrainingBatch>& batches, const CalibrationConfig& config,
                                      QuantizedParts parts) {
  const at::NoGradGuard no_grad;
  const QuantizedParts before = fake_quant.enabled();
  fake_quant.enable({true, false, false});
  at::Tensor first_rows;
  fake_quant.start_calibration(&first_rows);
  Progress progress("calibrate", std::ssize(batches), "rows");
  for (const TrainingBatch& batch : batches) {
    if (interrupt_requested()) fail("interrupted during calibration; nothing was trained yet");
    const auto& starts = batch.input.document_starts;
    first_rows = at::tensor(at::ArrayRef<int64_t>(starts.data(), starts.size() - 1), at::kLong);
    model.hidden_states(batch.input);
    progress.advance(1);
  }
  std::vector<CalibratedEdge> edges = fake_quant.finish_calibration(rule_of(config), parts);
  fake_quant.enable(before);
  return edges;
}

std::string describe_calibration(const std::vector<CalibratedEdge>& edges) {
  constexpr float kSpike = 8;  // times the largest magnitude of all other tokens
  int64_t spikes = 0;
  const CalibratedEdge* worst = nullptr;
  const auto ratio = [](const CalibratedEdge& edge) { return edge.largest_at_first / std::max(edge.largest, 1e-30f); };
  for (const CalibratedEdge& edge : edges) {
    if (ratio(edge) > kSpike) ++spikes;
    if (worst == nullptr || ratio(edge) > ratio(*worst)) worst = &edge;
  }
  std::string text = join(edges.size(), " static edges calibrated");
  if (spikes > 0) {
    text += join("; documents' first tokens spike at ", spikes, " of them, most at ", worst->name, " (",
                 worst->largest_at_first, ", others up to ", worst->largest, ")");
  }
  return text;
}

}  // namespace qat
