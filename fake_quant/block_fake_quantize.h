// Fake quantization to Q4_0 under learned scales as an autograd node: clipped straight-through gradient for the master,
// LSQ gradient for the scales.
#pragma once

#include <ATen/core/Tensor.h>

namespace qat {

// `value`, as block_values() gave it under `scales`, as a function of the master and of the scales' log_change (both
// may be without gradient). One scale per block of 32: fp16 [master.numel() / 32]. The gradient of the master is 0
// outside the code range. That of log_change is the LSQ gradient of the scale times the scale, over sqrt(32 * 7) (arXiv
// 1902.08153); that scales are rounded to fp16 passes straight through.
at::Tensor block_fake_quantize(const at::Tensor& master, const at::Tensor& log_change, const at::Tensor& scales,
                               const at::Tensor& value);

}  // namespace qat
