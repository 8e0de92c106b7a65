// Gradients of integer fake quantization against finite differences of the formula that LSQ differentiates, and the
// scale that learns.
#include "fake_quant/integer_fake_quantize.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "quant/grid.h"

namespace qat {
namespace {

struct Groups {
  Scheme id;
  int64_t count;
  int64_t width;
};

float scalar_value(const Groups& groups, float value, float scale) {
  const QuantScheme& row = scheme(groups.id);
  return grid::integer_value(grid::integer_code(value, grid::inverse_scale(scale), row.code_min, row.code_max), scale);
}

bool is_inside(const Groups& groups, float value, float scale) {
  const QuantScheme& row = scheme(groups.id);
  return grid::integer_inside_range(value, grid::inverse_scale(scale), row.code_min, row.code_max);
}

// What LSQ differentiates: rounding moves along with its argument. With start scale s0 and v0 = x / s0 it is
// s * (clamp(x / s) + round(clamp(v0)) - clamp(v0)), here summed over a group with the incoming gradient, at s = s0 *
// exp(t). Rounding is the grid's: its quotient is an fp32 number, so ties are not where doubles have them.
double surrogate(const Groups& groups, const at::Tensor& input, const at::Tensor& incoming, float start, double t) {
  const int low = scheme(groups.id).code_min;
  const int high = scheme(groups.id).code_max;
  const double scale = start * std::exp(t);
  double sum = 0;
  for (int64_t i = 0; i < input.numel(); ++i) {
    const float x = input[i].item<float>();
    const double at_start = std::clamp<double>(x / static_cast<double>(start), low, high);
    const double code = grid::integer_code(x, grid::inverse_scale(start), low, high);
    const double value = std::clamp<double>(x / scale, low, high) + code - at_start;
    sum += static_cast<double>(incoming[i].item<float>()) * scale * value;
  }
  return sum;
}

class IntegerFakeQuantize : public ::testing::TestWithParam<at::ScalarType> {};

TEST_P(IntegerFakeQuantize, ForwardIsTheScalarRuleAndTheGradientIsMaskedOutside) {
  for (const Groups groups : {Groups{Scheme::Int2, 5, 12}, Groups{Scheme::Int4, 3, 20}, Groups{Scheme::Int8, 2, 40}}) {
    const at::Tensor input = at::randn({groups.count, groups.width}, GetParam()).set_requires_grad(true);
    const at::Tensor scales = at::full({groups.count}, groups.id == Scheme::Int8 ? 0.01F : 0.2F, at::kFloat);
    const at::Tensor value = integer_values(groups.id, input, scales, groups.width);
    const at::Tensor incoming = at::randn({groups.count, groups.width}, GetParam());
    const at::Tensor result =
        integer_fake_quantize(groups.id, input, at::full({groups.count}, 0.0F), scales, groups.width, value);
    EXPECT_EQ(result.scalar_type(), GetParam());
    (result * incoming).sum().backward();
    int64_t outside = 0;
    for (int64_t row = 0; row < groups.count; ++row) {
      const float scale = scales[row].item<float>();
      for (int64_t i = 0; i < groups.width; ++i) {
        const float x = input[row][i].item<float>();
        const at::Tensor wanted = at::tensor(scalar_value(groups, x, scale)).to(GetParam());
        ASSERT_EQ(result[row][i].item<float>(), wanted.item<float>());
        const bool inside = is_inside(groups, x, scale);
        outside += inside ? 0 : 1;
        ASSERT_EQ(input.grad()[row][i].item<float>(), inside ? incoming[row][i].item<float>() : 0.0F);
      }
    }
    EXPECT_GT(outside, 0);
    EXPECT_LT(outside, input.numel());
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, IntegerFakeQuantize, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& test) { return test.param == at::kFloat ? "Float" : "BFloat16"; });

void expect_scale_gradient(const Groups& groups, const std::vector<float>& starts, const at::Tensor& input,
                           double features) {
  const at::Tensor scales = at::tensor(at::ArrayRef<float>(starts), at::kFloat);
  const at::Tensor log_change = at::full({groups.count}, 0.0F).set_requires_grad(true);
  const at::Tensor incoming = at::randn(input.sizes(), at::kFloat);
  const at::Tensor value = integer_values(groups.id, input, scales, groups.width);
  (integer_fake_quantize(groups.id, input, log_change, scales, groups.width, value) * incoming).sum().backward();
  const at::Tensor flat_input = input.to(at::kFloat).reshape({groups.count, groups.width});
  const at::Tensor flat_incoming =
      incoming.to(input.scalar_type()).to(at::kFloat).reshape({groups.count, groups.width});
  for (int64_t group = 0; group < groups.count; ++group) {
    constexpr double kStep = 1e-7;  // no value crosses an end of the range within it
    const float start = starts[static_cast<size_t>(group)];
    const double slope = (surrogate(groups, flat_input[group], flat_incoming[group], start, kStep) -
                          surrogate(groups, flat_input[group], flat_incoming[group], start, -kStep)) /
                         (2 * kStep);
    const double wanted = slope / std::sqrt(features * scheme(groups.id).code_max);
    EXPECT_NEAR(log_change.grad()[group].item<float>(), wanted, 2e-5 * (1 + std::fabs(wanted))) << "group " << group;
  }
}

TEST(ScaleGradient, OfRowsIsTheSlopeOfTheLsqFormula) {
  for (const Scheme id : {Scheme::Int2, Scheme::Int4, Scheme::Int8}) {
    const Groups groups{id, 3, 50};
    const float size = 2.0F / static_cast<float>(scheme(id).code_max + 1);
    expect_scale_gradient(groups, {size, 0.5F * size, 1.7F * size}, at::randn({3, 50}, at::kFloat), 50);
  }
}

// The scale of an edge covers all tokens; what LSQ counts is the features of one.
TEST(ScaleGradient, OfAnEdgeCountsTheFeaturesOfOneToken) {
  expect_scale_gradient({Scheme::Int8, 1, 7 * 30}, {0.012F}, at::randn({7, 30}, at::kFloat), 30);
}

TEST(ScaleGradient, OfBfloat16InputIsSummedInFloat) {
  expect_scale_gradient({Scheme::Int4, 2, 64}, {0.2F, 0.3F}, at::randn({2, 64}, at::kFloat).to(at::kBFloat16), 64);
}

// Longer than the piece that a thread takes at a time.
TEST(ScaleGradient, OfALongGroupGathersAllPieces) {
  const int64_t width = 3 * (int64_t{1} << 15) + 17;
  const at::Tensor input = at::full({1, width}, 100.0F);  // all clipped to 7
  const at::Tensor scales = at::full({1}, 1.0F);
  const at::Tensor log_change = at::full({1}, 0.0F).set_requires_grad(true);
  const at::Tensor value = integer_values(Scheme::Int4, input, scales, width);
  integer_fake_quantize(Scheme::Int4, input, log_change, scales, width, value).sum().backward();
  const double wanted = 7.0 * static_cast<double>(width) / std::sqrt(7.0 * static_cast<double>(width));
  EXPECT_NEAR(log_change.grad()[0].item<float>(), wanted, 1e-6 * wanted);
}

TEST(LearnedScaleTest, IsTheStartTimesTheExponentialOfItsChange) {
  LearnedScale scale("layers.0.mlp.input");
  EXPECT_FALSE(scale.is_set());
  scale.set_start(at::tensor({0.5F, 2.0F}), /*given=*/false);
  EXPECT_TRUE(scale.is_set());
  EXPECT_FALSE(scale.is_given());
  EXPECT_TRUE(scale.values().equal(at::tensor({0.5F, 2.0F})));
  at::Tensor parameter = scale.log_change();
  parameter.copy_(at::tensor({std::log(3.0F), -std::log(4.0F)}));
  scale.changed();
  EXPECT_NEAR(scale.values()[0].item<float>(), 1.5F, 1e-6F);
  EXPECT_NEAR(scale.values()[1].item<float>(), 0.5F, 1e-6F);
  parameter.fill_(-50);
  scale.changed();
  EXPECT_GT(scale.values().min().item<float>(), 0.0F);

  // A new start keeps the parameter that an optimizer knows and sets it back.
  scale.set_start(at::tensor({1.0F, 4.0F}), /*given=*/true);
  EXPECT_TRUE(scale.is_given());
  EXPECT_TRUE(scale.log_change().is_same(parameter));
  EXPECT_TRUE(scale.values().equal(at::tensor({1.0F, 4.0F})));
}

}  // namespace
}  // namespace qat
