#include "model/projection.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>

#include "model/apply_by_rows.h"
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
  // Autograd follows one piece only; where it does, nothing needs to be converted.
  if (at::GradMode::is_enabled()) {
    const at::Tensor flat = merged.reshape({-1, merged.size(-1)});
    const at::Tensor rows = at::arange(flat.size(0), flat.options().dtype(at::kLong));
    return weight_transform->apply_rows(flat.to(dtype), rows).view(merged.sizes());
  }
  at::Tensor result = at::empty(merged.sizes(), merged.options().dtype(dtype));
  apply_by_rows(*weight_transform, merged, result);
  return result;
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
