// Fake quantization of one weight: the forward pass reads bf16(decode(encode(bf16(master)))), the gradient passes straight
// through (under the rule's scales no value is ever clipped).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>

#include "core/float_types.h"
#include "fake_quant/keep.h"
#include "gemma4/quant_plan.h"
#include "gemma4/witness.h"
#include "model/projection.h"

namespace qat {

class WeightFakeQuantizer final : public WeightTransform {
 public:
  // `stored_scales` is empty or holds one fp16 per block of the weight, row-major; it must stay valid.
  WeightFakeQuantizer(std::string name, Scheme scheme, std::span<const Float16> stored_scales);

  at::Tensor apply(const at::Tensor& master) override;
  at::Tensor apply_rows(const at::Tensor& master, const at::Tensor& rows) override;

  void set_enabled(bool enabled) { enabled_ = enabled; }
  // At first Keep::Values: micro-batches and the two uses of a tied table share the forward value of the whole weight.
  void set_keep(Keep keep) {
    keep_ = keep;
    master_changed();
  }
  // Drops what was kept since the last apply().
  void master_changed() { kept_ = at::Tensor(); }
  bool has_fired() const { return fired_; }
  const std::string& name() const { return name_; }

  // Digests of codes and scales of a master, encoded in bounded pieces; `values` is left empty.
  WeightDigest digest(const at::Tensor& master) const;

 private:
  at::Tensor forward_value(const at::Tensor& master);

  std::string name_;
  Scheme scheme_;
  std::span<const Float16> stored_scales_;
  bool enabled_ = true;
  bool fired_ = false;
  Keep keep_ = Keep::Values;
  at::Tensor kept_;  // the forward value or the blocks of the whole weight
};

}  // namespace qat
