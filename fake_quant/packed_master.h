// A frozen weight kept as the codes and scales of its scheme instead of as numbers (QLoRA): what is read of it is
// bf16(decode(codes)), made anew at every use.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/projection.h"
#include "quant/scheme.h"

namespace qat {

class PackedMaster final : public StoredMaster {
 public:
  // Encodes `master` (BF16 or float, counted as BF16 numbers) in a block scheme. `block_scales` is undefined (the
  // scheme's rule) or has one fp16 per block. `dtype`: of what make() gives.
  PackedMaster(const at::Tensor& master, Scheme scheme, const at::Tensor& block_scales, at::ScalarType dtype);
  // The same in a scheme with row scales, fp32 [values / width].
  PackedMaster(const at::Tensor& master, Scheme scheme, const at::Tensor& row_scales, int64_t width,
               at::ScalarType dtype);

  at::Tensor make() const override;
  // Of codes and scales.
  int64_t bytes() const;

 private:
  Scheme scheme_;
  std::vector<int64_t> shape_;
  at::ScalarType dtype_;
  at::Tensor codes_;
  at::Tensor row_scales_;  // undefined in block schemes
  int64_t width_ = 0;
};

}  // namespace qat
