#include "ptq/input_statistics.h"

#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include "core/error.h"

namespace qat {

at::Tensor InputStatistics::apply(const at::Tensor& activation) {
  const at::Tensor rows = activation.detach().reshape({-1, activation.size(-1)}).to(at::kFloat);
  if (!sum_.defined()) sum_ = at::zeros({rows.size(1), rows.size(1)}, rows.options());
  sum_.addmm_(rows.t(), rows);
  count_ += rows.size(0);
  return activation;
}

at::Tensor InputStatistics::second_moments() const {
  QAT_CHECK(count_ > 0);
  return sum_.div(count_);
}

double output_error(const at::Tensor& difference, const at::Tensor& second_moments) {
  return at::mm(difference, second_moments).mul_(difference).sum(at::kDouble).item<double>();
}

}  // namespace qat
