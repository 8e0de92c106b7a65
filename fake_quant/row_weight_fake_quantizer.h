// Fake quantization of one weight to Int2, Int4 or Int8 with a scale per row (or slice of a table's row): the forward
// pass reads decode(encode(master)), in fp32 or rounded once to BF16.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>

#include "fake_quant/keep.h"
#include "fake_quant/learned_scale.h"
#include "fake_quant/weight_sample.h"
#include "gemma4/weight_table.h"
#include "gemma4/witness.h"
#include "model/projection.h"
#include "quant/scheme.h"

namespace qat {

// How the scales of rows are found where a checkpoint brings none.
enum class RowScaleMethod { AbsoluteMax, Searched };

class RowWeightFakeQuantizer final : public WeightTransform {
 public:
  // `one_scale_per_row`: also where the format has one per slice of a row. `device`: the weight's.
  RowWeightFakeQuantizer(const WeightSpec& weight, Scheme scheme, bool one_scale_per_row, at::Device device = at::kCPU);

  // Finds a scale for every row of `master`, on the CPU in bounded pieces.
  void find_scales(const at::Tensor& master, RowScaleMethod method);

  at::Tensor apply(const at::Tensor& master) override;
  at::Tensor apply_rows(const at::Tensor& values, const at::Tensor& rows) override;
  void forget() override { kept_ = at::Tensor(); }

  const std::string& name() const { return scale_.name(); }
  LearnedScale& scale() { return scale_; }
  // Scales as a checkpoint stores them: one per WeightSpec::scale_width values, row-major, fp32.
  at::Tensor stored_scales() const;
  // Takes such scales; `scales` has one per WeightSpec::scale_width values.
  void give_scales(std::span<const float> scales);
  void set_enabled(bool enabled) { enabled_ = enabled; }
  bool is_enabled() const { return enabled_; }
  bool has_fired() const { return fired_; }
  // At first Keep::Values.
  void set_keep(Keep keep) {
    keep_ = keep;
    kept_ = at::Tensor();
  }
  // To call when master or scales moved: drops what was kept since the last apply().
  void changed();

  // Digests of codes and scales; `values` is left empty.
  WeightDigest digest(const at::Tensor& master) const;
  WeightSample sample(const at::Tensor& master) const;

 private:
  at::Tensor forward_value(const at::Tensor& master);

  Scheme scheme_;
  int64_t width_;           // values that share a scale
  int64_t slices_;          // stored scales per scale
  int64_t scales_per_row_;  // of the tensor
  LearnedScale scale_;
  bool enabled_ = true;
  bool fired_ = false;
  Keep keep_ = Keep::Values;
  at::Tensor kept_;  // the forward value or the packed codes of the whole weight
};

}  // namespace qat
