// Static int8 fake quantization of an activation edge or of a layer's cached keys or values: one fp32 scale, found by
// calibration, then learned or kept (mobile_format.md 1.4, 1.5).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fake_quant/learned_scale.h"
#include "fake_quant/magnitude_histogram.h"
#include "fake_quant/quantization_statistics.h"
#include "model/projection.h"

namespace qat {

class StaticFakeQuantizer final : public ActivationTransform {
 public:
  explicit StaticFakeQuantizer(std::string name, at::Device device = at::kCPU) : scale_(std::move(name), device) {}

  // Slots that share this quantizer and pass it one and the same tensor (q, k and v; gate and up). It is then computed
  // once.
  void add_user() { ++users_; }

  at::Tensor apply(const at::Tensor& activation) override;

  const std::string& name() const { return scale_.name(); }
  LearnedScale& scale() { return scale_; }
  float scale_value() const { return scale_.values().item<float>(); }
  void set_scale(float scale, bool given);
  void set_enabled(bool enabled) { enabled_ = enabled; }
  bool has_fired() const { return fired_; }

  // Calibration: apply() passes values through and counts their magnitudes; rows of `first_rows` (int64 indices into
  // the first dimension, documents' first tokens) apart from the others.
  struct Observation {
    MagnitudeHistogram rows;
    MagnitudeHistogram first_rows;
  };
  void start_observing(const at::Tensor* first_rows);
  // Ends it. Empty if nothing came by.
  std::optional<Observation> take_observation();

  // Until nullptr is given, apply() appends the codes. Neither this nor what follows sees a recomputation.
  void record_into(std::vector<int8_t>* codes) { recorded_ = codes; }
  // Until nullptr is given, apply() adds what it changes.
  void measure_into(QuantizationStatistics* statistics) { measured_ = statistics; }

 private:
  at::Tensor quantize(const at::Tensor& activation);
  void observe(const at::Tensor& activation);
  void look_on(const at::Tensor& activation, const at::Tensor& value);

  LearnedScale scale_;
  bool enabled_ = true;
  bool fired_ = false;
  int users_ = 0;
  // What the other users of a shared edge will ask for next.
  at::Tensor shared_input_;
  at::Tensor shared_output_;
  int users_left_ = 0;
  std::optional<Observation> observation_;
  const at::Tensor* first_rows_ = nullptr;
  std::vector<int8_t>* recorded_ = nullptr;
  QuantizationStatistics* measured_ = nullptr;
};

}  // namespace qat
