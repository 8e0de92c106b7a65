// GPTQ: plain rounding where features do not occur together, less output error where they do.
#include "ptq/gptq.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/diag.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "ptq/input_statistics.h"
#include "support/nearest_on_grid.h"

namespace qat {
namespace {

using testing::nearest_on_grid;

struct Problem {
  at::Tensor weight = at::randn({48, 192}, at::kFloat);
  at::Tensor scales = (at::rand({48, 6}, at::kFloat) * 0.1 + 0.3).to(at::kHalf);
};

TEST(Gptq, RoundsToNearestWhereFeaturesDoNotOccurTogether) {
  const Problem problem;
  const at::Tensor moments = at::diag(at::rand({192}, at::kFloat) + 0.1);
  for (const bool orders : {false, true}) {
    const auto found = gptq(problem.weight, problem.scales, moments, {0.01, orders});
    ASSERT_TRUE(found);
    EXPECT_TRUE(found->equal(nearest_on_grid(problem.weight, problem.scales)));
  }
}

TEST(Gptq, LowersTheOutputErrorWhereTheyDo) {
  const Problem problem;
  // Inputs in few directions, and some features of much larger size.
  const at::Tensor inputs =
      at::mm(at::randn({1000, 40}, at::kFloat), at::randn({40, 192}, at::kFloat)) * at::rand({192}, at::kFloat).pow(3) +
      at::randn({1000, 192}, at::kFloat) * 0.05;
  const at::Tensor moments = at::mm(inputs.t(), inputs) / 1000;
  const double rounding = output_error(nearest_on_grid(problem.weight, problem.scales) - problem.weight, moments);
  for (const bool orders : {false, true}) {
    const auto found = gptq(problem.weight, problem.scales, moments, {0.01, orders});
    ASSERT_TRUE(found);
    EXPECT_TRUE(found->equal(nearest_on_grid(*found, problem.scales))) << "every value is one of its grid";
    EXPECT_LT(output_error(*found - problem.weight, moments), 0.6 * rounding) << orders;
  }
}

TEST(Gptq, DegenerateInputsAreDampedOrRefused) {
  const Problem problem;
  const at::Tensor direction = at::randn({192, 1}, at::kFloat);
  const auto found = gptq(problem.weight, problem.scales, at::mm(direction, direction.t()), {1e-9, true});
  ASSERT_TRUE(found);
  EXPECT_TRUE(found->isfinite().all().item<bool>());
  EXPECT_FALSE(gptq(problem.weight, problem.scales, at::zeros({192, 192}, at::kFloat), {}));
  EXPECT_FALSE(gptq(problem.weight, problem.scales, at::diag(at::full({192}, -1.0F)), {}));
}

TEST(InputStatisticsTest, AreTheMeanOfAllRows) {
  InputStatistics statistics;
  const at::Tensor first = at::randn({2, 3, 8}, at::kFloat), second = at::randn({5, 8}, at::kFloat);
  EXPECT_TRUE(statistics.apply(first).is_same(first));
  statistics.apply(second);
  EXPECT_EQ(statistics.count(), 11);
  const at::Tensor wanted = (at::mm(first.view({6, 8}).t(), first.view({6, 8})) + at::mm(second.t(), second)) / 11;
  EXPECT_LT(at::abs(statistics.second_moments() - wanted).max().item<float>(), 1e-5F);
  // Of a product with one row of the weight changed: the mean squared change of that output.
  at::Tensor change = at::zeros({4, 8}, at::kFloat);
  change[2] = at::randn({8}, at::kFloat);
  const at::Tensor outputs = at::mm(second, change[2].unsqueeze(1));
  InputStatistics of_second;
  of_second.apply(second);
  EXPECT_NEAR(output_error(change, of_second.second_moments()), outputs.square().mean().item<double>(), 1e-4);
}

}  // namespace
}  // namespace qat
