#include "model/weight_product.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "model/cpu_instructions.h"

namespace qat {

namespace {

// Fewer rows than this do not repay the conversion of the weight.
constexpr int64_t kFewestRowsForFloat = 32;
// Bounds the fp32 copy of a part of the weight (64 MB).
constexpr int64_t kTileElements = int64_t{1} << 24;

bool multiplies_bfloat16(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16 && (!x.device().is_cpu() || cpu_multiplies_bfloat16());
}

bool runs_in_float(const at::Tensor& weight, int64_t rows) {
  return weight.scalar_type() == at::kBFloat16 && rows >= kFewestRowsForFloat && !multiplies_bfloat16(weight);
}

at::Tensor in_float(const at::Tensor& tensor) { return tensor.to(at::kFloat); }

// Calls visit(first_row, rows) for parts of a matrix whose fp32 copies stay small.
template <class Visit>
void for_row_tiles(int64_t rows, int64_t columns, Visit&& visit) {
  const int64_t step = std::max<int64_t>(1, kTileElements / std::max<int64_t>(1, columns));
  for (int64_t first = 0; first < rows; first += step) visit(first, std::min(step, rows - first));
}

at::Tensor rows_of(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

// BF16 product on fp32 copies. Only BF16 tensors are kept for the backward pass.
class ProductInFloat : public torch::autograd::Function<ProductInFloat> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& weight) {
    context->save_for_backward({x, weight});
    const at::Tensor rows = in_float(rows_of(x));
    auto shape = x.sizes().vec();
    shape.back() = weight.size(0);
    at::Tensor result = at::empty({rows.size(0), weight.size(0)}, x.options());
    for_row_tiles(weight.size(0), weight.size(1), [&](int64_t first, int64_t count) {
      result.narrow(1, first, count).copy_(at::linear(rows, in_float(weight.narrow(0, first, count))));
    });
    return result.view(shape);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::Tensor& weight = saved[1];
    const at::Tensor gradient = rows_of(gradients[0]);
    at::Tensor of_x;
    at::Tensor of_weight;
    if (x.requires_grad()) of_x = gradient_of_input(gradient, weight.detach()).to(x.scalar_type()).view(x.sizes());
    if (weight.requires_grad()) {
      const at::Tensor rows = in_float(rows_of(x.detach()));
      of_weight = at::empty(weight.sizes(), weight.options().requires_grad(false));
      for_row_tiles(weight.size(0), weight.size(1), [&](int64_t first, int64_t count) {
        of_weight.narrow(0, first, count).copy_(at::mm(in_float(gradient.narrow(1, first, count)).t(), rows));
      });
    }
    return {of_x, of_weight};
  }
};

}  // namespace

at::Tensor multiply_by_weight(const at::Tensor& x, const at::Tensor& weight) {
  const int64_t rows = x.numel() / std::max<int64_t>(1, x.size(-1));
  if (runs_in_float(weight, rows)) return ProductInFloat::apply(x, weight);
  return at::linear(x, weight);
}

at::Tensor gradient_of_input(const at::Tensor& gradient, const at::Tensor& weight) {
  if (weight.scalar_type() == at::kFloat) return at::mm(gradient, weight);
  if (multiplies_bfloat16(weight)) return in_float(at::mm(gradient.to(weight.scalar_type()), weight));
  at::Tensor result = at::zeros({gradient.size(0), weight.size(1)}, weight.options().dtype(at::kFloat));
  for_row_tiles(weight.size(0), weight.size(1), [&](int64_t first, int64_t count) {
    result.addmm_(in_float(gradient.narrow(1, first, count)), in_float(weight.narrow(0, first, count)));
  });
  return result;
}

void add_gradient_of_weight(at::Tensor& total, const at::Tensor& gradient, const at::Tensor& x) {
  if (multiplies_bfloat16(x)) {
    total.add_(at::mm(gradient.to(x.scalar_type()).t(), x));
  } else {
    total.addmm_(in_float(gradient).t(), in_float(x));
  }
}

}  // namespace qat
