#include "model/weight_product.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/golden_models.h"

namespace qat {
namespace {

using testing::relative_difference;

struct Outcome {
  at::Tensor output;
  at::Tensor of_x;
  at::Tensor of_weight;
};

template <class Product>
Outcome run(Product&& product, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& of_output) {
  const at::Tensor x_leaf = x.detach().clone().requires_grad_(true);
  const at::Tensor weight_leaf = weight.detach().clone().requires_grad_(true);
  const at::Tensor output = product(x_leaf, weight_leaf);
  torch::autograd::backward({output}, {of_output.to(output.scalar_type())});
  return {output.detach(), x_leaf.grad(), weight_leaf.grad()};
}

// BF16 results may differ from the exact ones by one rounding each: 2^-9 relative. Few rows go to LibTorch's own BF16
// products, which may round partial sums.
TEST(WeightProduct, InBf16IsTheExactOneRoundedOnce) {
  for (const int64_t rows : {1, 31, 32, 100}) {
    const at::Tensor x = at::randn({rows, 40}).to(at::kBFloat16);
    const at::Tensor weight = at::randn({24, 40}).to(at::kBFloat16);
    const at::Tensor of_output = at::randn({rows, 24}).to(at::kBFloat16);
    const Outcome exact = run([](const auto& a, const auto& b) { return at::linear(a, b); }, x.to(at::kFloat),
                              weight.to(at::kFloat), of_output);
    const Outcome found = run(multiply_by_weight, x, weight, of_output);
    const double tolerance = rows < 32 ? 0x1p-7 : 0x1p-9;
    EXPECT_EQ(found.output.scalar_type(), at::kBFloat16);
    EXPECT_LE(relative_difference(found.output, exact.output), tolerance) << rows;
    EXPECT_LE(relative_difference(found.of_x, exact.of_x), tolerance) << rows;
    EXPECT_LE(relative_difference(found.of_weight, exact.of_weight), tolerance) << rows;
  }
}

TEST(WeightProduct, KeepsLeadingDimensions) {
  const at::Tensor x = at::randn({3, 20, 8}).to(at::kBFloat16);
  const at::Tensor weight = at::randn({5, 8}).to(at::kBFloat16);
  const at::Tensor of_output = at::randn({3, 20, 5});
  const Outcome found = run(multiply_by_weight, x, weight, of_output);
  EXPECT_EQ(found.output.sizes(), at::IntArrayRef({3, 20, 5}));
  EXPECT_EQ(found.of_x.sizes(), x.sizes());
  EXPECT_EQ(found.of_weight.sizes(), weight.sizes());
}

TEST(WeightProduct, FrozenWeightGetsNoGradient) {
  const at::Tensor x = at::randn({40, 8}).to(at::kBFloat16).requires_grad_(true);
  const at::Tensor weight = at::randn({5, 8}).to(at::kBFloat16);
  torch::autograd::backward({multiply_by_weight(x, weight).sum()}, {});
  EXPECT_TRUE(x.grad().defined());
  EXPECT_FALSE(weight.grad().defined());
}

// A processor with BF16 instructions rounds a gradient, and the product, to BF16.
TEST(WeightProduct, PlainGradientsEqualThoseOfAutograd) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::randn({40, 8}).to(dtype);
    const at::Tensor weight = at::randn({5, 8}).to(dtype);
    const at::Tensor of_output = at::randn({40, 5});
    const Outcome exact = run([](const auto& a, const auto& b) { return at::linear(a, b); }, x.to(at::kFloat),
                              weight.to(at::kFloat), of_output);
    const double tolerance = dtype == at::kFloat ? 1e-5 : 1.0 / 256;
    EXPECT_LE(relative_difference(gradient_of_input(of_output, weight), exact.of_x), tolerance);
    at::Tensor total = at::randn({5, 8});
    const at::Tensor before = total.clone();
    add_gradient_of_weight(total, of_output, x);
    EXPECT_LE(relative_difference(total - before, exact.of_weight), tolerance);
  }
}

}  // namespace
}  // namespace qat
