#include "model/apply_by_rows.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <functional>

#include "model/weight_product.h"

namespace qat {

namespace {

// Calls visit(first, count) for runs of the rows of [rows, columns] that have a bounded number of values.
void for_each_piece(int64_t rows, int64_t columns, const std::function<void(int64_t first, int64_t count)>& visit) {
  const int64_t step = std::max<int64_t>(1, kConvertedValues / columns);
  for (int64_t first = 0; first < rows; first += step) visit(first, std::min(step, rows - first));
}

// On the device of `weight`.
at::Tensor row_numbers(int64_t first, int64_t count, const at::Tensor& weight) {
  return at::arange(first, first + count, weight.options().dtype(at::kLong));
}

}  // namespace

void apply_by_rows(WeightTransform& transform, const at::Tensor& master, const at::Tensor& result) {
  const c10::NoGradGuard no_grad;
  const at::Tensor flat = master.reshape({-1, master.size(-1)});
  const at::Tensor rows_of_result = result.view(flat.sizes());
  for_each_piece(flat.size(0), flat.size(1), [&](int64_t first, int64_t count) {
    const at::Tensor rows = row_numbers(first, count, flat);
    rows_of_result.narrow(0, first, count)
        .copy_(transform.apply_rows(flat.narrow(0, first, count).to(result.scalar_type()), rows));
  });
}

at::Tensor product_by_rows(const Projection& projection, const at::Tensor& x) {
  const c10::NoGradGuard no_grad;
  const at::Tensor input = projection.input_transform ? projection.input_transform->apply(x) : x;
  const at::Tensor merged = projection.merged_weight();
  at::Tensor product = at::empty({x.size(0), merged.size(0)}, input.options());
  for_each_piece(merged.size(0), merged.size(1), [&](int64_t first, int64_t count) {
    at::Tensor piece = merged.narrow(0, first, count).to(input.scalar_type());
    if (projection.weight_transform) {
      piece = projection.weight_transform->apply_rows(piece, row_numbers(first, count, merged));
    }
    product.narrow(1, first, count).copy_(multiply_by_weight(input, piece));
  });
  if (projection.side_product) product = projection.side_product->add_to(input, product);
  return projection.output_transform ? projection.output_transform->apply(product) : product;
}

}  // namespace qat
