#include "fake_quant/learned_scale.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include "core/error.h"

namespace qat {

void LearnedScale::set_start(const at::Tensor& start, bool given) {
  QAT_CHECK(start.scalar_type() == at::kFloat && start.dim() == 1);
  const c10::NoGradGuard no_grad;
  given_ = given;
  start_ = start.detach().to(device_).contiguous();
  if (log_change_.defined()) {
    log_change_.zero_();  // in place: an optimizer may know it
  } else {
    log_change_ = at::zeros_like(start_);
  }
  changed();
}

const at::Tensor& LearnedScale::values() const {
  QAT_CHECK(is_set());
  if (!values_.defined()) {
    const c10::NoGradGuard no_grad;
    values_ = start_ * log_change_.detach().exp();
  }
  return values_;
}

}  // namespace qat
