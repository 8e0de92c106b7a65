// Signed gradient descent on rounding and clipping: what it returns lies on the grid, and is no worse than its start.
#include "ptq/sign_descent.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/diag.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "ptq/input_statistics.h"
#include "support/nearest_on_grid.h"

namespace qat {
namespace {

using testing::nearest_on_grid;

struct Problem {
  at::Tensor weight = at::randn({48, 192}, at::kFloat);
  at::Tensor scales =
      ((at::rand({48, 6}, at::kFloat) * 0.1 + 0.3) * at::randn({48, 6}, at::kFloat).sign()).to(at::kHalf);
  // Inputs in few directions, and some features of much larger size.
  at::Tensor inputs =
      at::mm(at::randn({1000, 40}, at::kFloat), at::randn({40, 192}, at::kFloat)) * at::rand({192}, at::kFloat).pow(3) +
      at::randn({1000, 192}, at::kFloat) * 0.05;
  at::Tensor moments = at::mm(inputs.t(), inputs) / 1000;
};

at::Tensor row_errors(const at::Tensor& difference, const at::Tensor& moments) {
  return (at::mm(difference, moments) * difference).sum(1);
}

TEST(SignDescent, LowersTheOutputErrorOnTheGridOfItsScales) {
  const Problem problem;
  const at::Tensor start = nearest_on_grid(problem.weight, problem.scales);
  const OnGrid found = sign_descent(problem.weight, problem.scales, problem.moments, {});
  EXPECT_TRUE(found.values.equal(nearest_on_grid(found.values, found.scales))) << "every value is one of its grid";
  EXPECT_TRUE(found.scales.isfinite().all().item<bool>());
  EXPECT_LT(output_error(found.values - problem.weight, problem.moments),
            0.6 * output_error(start - problem.weight, problem.moments));
  // Both are learned: offsets, since values leave the nearest one under their scales, and scales.
  EXPECT_FALSE(found.values.equal(nearest_on_grid(problem.weight, found.scales)));
  EXPECT_GT(found.scales.ne(problem.scales).sum().item<int64_t>(), found.scales.numel() / 2);
}

TEST(SignDescent, NoRowGetsWorseThanTheNearestValues) {
  const Problem problem;
  const at::Tensor start = nearest_on_grid(problem.weight, problem.scales);
  const at::Tensor before = row_errors(start - problem.weight, problem.moments);
  for (const int64_t steps : {1, 2, 7, 50}) {
    const OnGrid found = sign_descent(problem.weight, problem.scales, problem.moments, {steps});
    const at::Tensor after = row_errors(found.values - problem.weight, problem.moments);
    EXPECT_TRUE(after.le(before).all().item<bool>()) << steps;
  }
}

TEST(SignDescent, WhatIsExactAlreadyAndBlocksWithoutScaleStay) {
  Problem problem;
  problem.scales.narrow(1, 2, 1).zero_();
  const at::Tensor weight = nearest_on_grid(problem.weight, problem.scales);
  const OnGrid found = sign_descent(weight, problem.scales, problem.moments, {20});
  EXPECT_TRUE(found.values.equal(weight));
  EXPECT_TRUE(found.scales.equal(problem.scales));
}

}  // namespace
}  // namespace qat
