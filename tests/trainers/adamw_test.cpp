#include "trainers/adamw.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/float_types.h"
#include "core/random.h"
#include "trainers/schedule.h"

namespace qat {
namespace {

struct ScalarAdamW {
  double master = 0, first = 0, second = 0;
  void step(double gradient, double rate, double decay, int64_t t, const OptimizerConfig& o) {
    first = o.beta1 * first + (1 - o.beta1) * gradient;
    second = o.beta2 * second + (1 - o.beta2) * gradient * gradient;
    master *= 1 - rate * decay;
    const double corrected = std::sqrt(second / (1 - std::pow(o.beta2, static_cast<double>(t))));
    master -= rate * first / (1 - std::pow(o.beta1, static_cast<double>(t))) / (corrected + o.epsilon);
  }
};

at::Tensor random_values(SplitMix64& random, int64_t count, double scale) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(static_cast<float>(scale * (2 * random.uniform() - 1)));
  return at::tensor(values);
}

class AdamWTest : public ::testing::TestWithParam<at::ScalarType> {};

TEST_P(AdamWTest, EqualsTheFormulaInDoublePrecision) {
  const uint64_t seed = 20260301;
  SCOPED_TRACE(seed);
  SplitMix64 random(seed);
  constexpr int64_t kCount = 1003;
  OptimizerConfig options;
  options.weight_decay = 0.1;
  std::vector<TrainedWeight> weights;
  for (const bool decays : {true, false}) {
    const at::Tensor parameter = random_values(random, kCount, 0.5).to(at::kBFloat16).to(GetParam());
    weights.push_back({decays ? "matrix" : "norm", parameter.set_requires_grad(true), decays});
  }
  std::vector<std::vector<ScalarAdamW>> expected(2, std::vector<ScalarAdamW>(kCount));
  for (size_t w = 0; w < 2; ++w) {
    const at::Tensor start = weights[w].parameter.detach().to(at::kFloat);
    for (int64_t i = 0; i < kCount; ++i) expected[w][static_cast<size_t>(i)].master = start.const_data_ptr<float>()[i];
  }
  AdamW optimizer(weights, options);
  for (int64_t t = 1; t <= 20; ++t) {
    const double rate = 1e-3 * static_cast<double>(t);
    const double divisor = 3;
    const std::vector<at::Tensor> gradients{random_values(random, kCount, 2), random_values(random, kCount, 0.01)};
    for (size_t w = 0; w < 2; ++w) {
      for (int64_t i = 0; i < kCount; ++i) {
        const double gradient = gradients[w].const_data_ptr<float>()[i] / divisor;
        expected[w][static_cast<size_t>(i)].step(gradient, rate, weights[w].decays ? 0.1 : 0, t, options);
      }
    }
    optimizer.step({gradients[0].clone(), gradients[1].clone()}, {divisor, rate, 0.0});
  }
  double distance = 0;
  for (size_t w = 0; w < 2; ++w) {
    const auto* masters = optimizer.state().masters[w].const_data_ptr<float>();
    const at::Tensor parameter = weights[w].parameter.detach().to(at::kFloat);
    for (int64_t i = 0; i < kCount; ++i) {
      distance = std::max(distance, std::abs(masters[i] - expected[w][static_cast<size_t>(i)].master));
      ASSERT_EQ(parameter.const_data_ptr<float>()[i], to_float(to_bfloat16(masters[i]))) << "parameter != bf16(master)";
    }
  }
  EXPECT_LT(distance, 2e-6);
}

INSTANTIATE_TEST_SUITE_P(Types, AdamWTest, ::testing::Values(at::kFloat, at::kBFloat16));

TEST(GradientSumTest, AddsPassesInFp32) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor parameter = at::tensor(std::vector<float>{1, 2}).to(type).set_requires_grad(true);
    GradientSum sum({{"w", parameter, true}});
    // 256 + 1 is no BF16 number: a sum kept in BF16 would lose the second pass.
    for (const float factor : {256.0F, 1.0F}) {
      (parameter * at::tensor(std::vector<float>{factor, 0}).to(type)).sum().backward();
      sum.collect();
    }
    ASSERT_EQ(sum.sums().size(), 1U);
    EXPECT_EQ(sum.sums()[0].scalar_type(), at::kFloat);
    EXPECT_EQ(sum.sums()[0].const_data_ptr<float>()[0], 257);
    EXPECT_DOUBLE_EQ(sum.norm(), 257);
    sum.clear();
    EXPECT_EQ(sum.norm(), 0);
  }
}

TEST(LearningRateTest, WarmsUpAndFallsAlongACosine) {
  OptimizerConfig options;
  options.learning_rate = 2;
  options.warmup_steps = 4;
  options.final_ratio = 0.25;
  EXPECT_DOUBLE_EQ(learning_rate_at(options, 0, 25), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate_at(options, 3, 25), 2);
  EXPECT_DOUBLE_EQ(learning_rate_at(options, 4, 25), 2);
  EXPECT_DOUBLE_EQ(learning_rate_at(options, 14, 25), 1.25);
  EXPECT_DOUBLE_EQ(learning_rate_at(options, 24, 25), 0.5);
  options.warmup_steps = 0;
  EXPECT_DOUBLE_EQ(learning_rate_at(options, 0, 1), 2);
}

}  // namespace
}  // namespace qat
