#include "model/projection.h"

#include <ATen/ops/embedding.h>

#include "model/weight_product.h"

namespace qat {

at::Tensor Projection::merged_weight() const { return weight_delta ? weight_delta->add_to(weight) : weight; }

at::Tensor Projection::effective_weight() const {
  const at::Tensor merged = merged_weight();
  return weight_transform ? weight_transform->apply(merged) : merged;
}

at::Tensor Projection::effective_rows(const at::Tensor& rows) const {
  const at::Tensor merged = merged_weight();
  return weight_transform ? weight_transform->apply_rows(merged, rows) : at::embedding(merged, rows);
}

at::Tensor Projection::operator()(const at::Tensor& x) const {
  const at::Tensor input = input_transform ? input_transform->apply(x) : x;
  const at::Tensor output = multiply_by_weight(input, effective_weight());
  return output_transform ? output_transform->apply(output) : output;
}

}  // namespace qat
