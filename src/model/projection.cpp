#include "model/projection.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>

#include <algorithm>

#include "model/weight_product.h"

namespace qat {

std::unique_ptr<WeightLoan> Projection::borrow_for_product() const {
  if (!lender) return nullptr;
  // What is converted is made by rows, from those of the master.
  const bool is_converted = computes_in && weight.scalar_type() != *computes_in;
  return is_converted ? lender->lend_master() : lender->lend_for_product();
}

std::unique_ptr<WeightLoan> Projection::borrow_master() const {
  if (!lender) return nullptr;
  auto loan = lender->lend_master();
  loan->arrive();
  return loan;
}

at::Tensor Projection::master() const { return stored_master ? stored_master->make() : weight; }

at::Tensor Projection::merged_weight() const { return weight_delta ? weight_delta->add_to(master()) : master(); }

at::Tensor Projection::effective_weight() const {
  const at::Tensor merged = merged_weight();
  const bool is_converted = computes_in && merged.scalar_type() != *computes_in;
  if (!weight_transform) return is_converted ? merged.to(*computes_in) : merged;
  return stored_master || is_converted ? weight_made_by_rows(merged) : weight_transform->apply(merged);
}

at::Tensor Projection::weight_made_by_rows(const at::Tensor& merged) const {
  const at::ScalarType dtype = computes_in.value_or(merged.scalar_type());
  const at::Tensor flat = merged.reshape({-1, merged.size(-1)});
  const auto part = [&](int64_t first, int64_t count) {
    const at::Tensor rows = at::arange(first, first + count, at::kLong);
    return weight_transform->apply_rows(flat.narrow(0, first, count).to(dtype), rows);
  };
  // Autograd follows one piece only; where it does, nothing needs to be converted.
  if (at::GradMode::is_enabled()) return part(0, flat.size(0)).view(merged.sizes());
  at::Tensor result = at::empty(flat.sizes(), flat.options().dtype(dtype));
  const int64_t step = std::max<int64_t>(1, kConvertedValues / flat.size(1));
  for (int64_t first = 0; first < flat.size(0); first += step) {
    const int64_t count = std::min(step, flat.size(0) - first);
    result.narrow(0, first, count).copy_(part(first, count));
  }
  return result.view(merged.sizes());
}

at::Tensor Projection::effective_rows(const at::Tensor& rows) const {
  const at::Tensor merged = merged_weight();
  const auto wanted = [&](const at::Tensor& values) { return computes_in ? values.to(*computes_in) : values; };
  if (!weight_transform) return wanted(at::embedding(merged, rows));
  return weight_transform->apply_rows(wanted(at::index_select(merged, 0, rows)), rows);
}

at::Tensor Projection::operator()(const at::Tensor& x) const {
  const at::Tensor input = input_transform ? input_transform->apply(x) : x;
  at::Tensor output = multiply_by_weight(input, effective_weight());
  if (side_product) output = side_product->add_to(input, output);
  return output_transform ? output_transform->apply(output) : output;
}

}  // namespace qat
