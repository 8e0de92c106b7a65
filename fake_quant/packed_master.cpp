#include "fake_quant/packed_master.h"

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include "core/error.h"
#include "fake_quant/block_values.h"
#include "fake_quant/integer_codes.h"

namespace qat {

PackedMaster::PackedMaster(const at::Tensor& master, Scheme id, const at::Tensor& block_scales, at::ScalarType dtype)
    : scheme_(id), shape_(master.sizes().vec()), dtype_(dtype), codes_(encoded_blocks(id, master, block_scales)) {
  QAT_CHECK(scheme(id).is_quantized() && !scheme(id).has_row_scales());
}

PackedMaster::PackedMaster(const at::Tensor& master, Scheme id, const at::Tensor& row_scales, int64_t width,
                           at::ScalarType dtype)
    : scheme_(id),
      shape_(master.sizes().vec()),
      dtype_(dtype),
      codes_(packed_integer_codes(id, as_bfloat16(master), row_scales, width)),
      row_scales_(row_scales),
      width_(width) {}

at::Tensor PackedMaster::make() const {
  const c10::NoGradGuard no_grad;
  // Only its shape and dtype are looked at; it takes the memory of one value.
  const at::Tensor like = at::empty({1}, dtype_).expand(shape_);
  if (!row_scales_.defined()) return values_of_blocks(scheme_, codes_, like);
  // Values of integer schemes are fp32 numbers; a master holds BF16 ones.
  const at::Tensor rounded = at::empty({1}, at::kBFloat16).expand(shape_);
  return values_of_integer_codes(scheme_, codes_, row_scales_, width_, rounded).to(dtype_);
}

int64_t PackedMaster::bytes() const {
  return static_cast<int64_t>(codes_.nbytes() + (row_scales_.defined() ? row_scales_.nbytes() : 0));
}

}  // namespace qat
