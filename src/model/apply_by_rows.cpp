#include "model/apply_by_rows.h"

#include <ATen/ops/arange.h>
#include <c10/core/GradMode.h>

#include <algorithm>

namespace qat {

void apply_by_rows(WeightTransform& transform, const at::Tensor& master, const at::Tensor& result) {
  const c10::NoGradGuard no_grad;
  const at::Tensor flat = master.reshape({-1, master.size(-1)});
  const at::Tensor rows_of_result = result.view(flat.sizes());
  const int64_t step = std::max<int64_t>(1, kConvertedValues / flat.size(1));
  for (int64_t first = 0; first < flat.size(0); first += step) {
    const int64_t count = std::min(step, flat.size(0) - first);
    const at::Tensor rows = at::arange(first, first + count, at::kLong);
    rows_of_result.narrow(0, first, count)
        .copy_(transform.apply_rows(flat.narrow(0, first, count).to(result.scalar_type()), rows));
  }
}

}  // namespace qat
