#include "model/projection.h"

#include <ATen/ops/embedding.h>

#include "model/weight_product.h"

namespace qat {

at::Tensor Projection::effective_weight() const {
  const at::Tensor changed = weight_delta ? weight_delta->add_to(weight) : weight;
  return weight_transform ? weight_transform->apply(changed) : changed;
}

at::Tensor Projection::effective_rows(const at::Tensor& rows) const {
  const at::Tensor changed = weight_delta ? weight_delta->add_to(weight) : weight;
  return weight_transform ? weight_transform->apply_rows(changed, rows) : at::embedding(changed, rows);
}

at::Tensor Projection::operator()(const at::Tensor& x) const {
  const at::Tensor input = input_transform ? input_transform->apply(x) : x;
  const at::Tensor output = multiply_by_weight(input, effective_weight());
  return output_transform ? output_transform->apply(output) : output;
}

}  // namespace qat
