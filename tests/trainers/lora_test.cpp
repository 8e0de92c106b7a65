// LoRA's part in one weight and in one model: merged values, gradients, first values, dropout.
#include "trainers/lora.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <map>

#include "core/random.h"
#include "fake_quant/tensor_values.h"
#include "model/chunked_head.h"
#include "support/temporary_folder.h"
#include "support/tiny_model_folder.h"

namespace qat {
namespace {

constexpr uint64_t kSeed = 20261126;

at::Tensor random_matrix(SplitMix64& random, int64_t rows, int64_t columns, double size = 1) {
  at::Tensor matrix = at::empty({rows, columns}, at::kFloat);
  for (float& value : values_of<float>(matrix)) value = static_cast<float>(size * (2 * random.uniform() - 1));
  return matrix;
}

// One weight with its adapter, and a gradient of what is read of it.
struct OneWeight {
  explicit OneWeight(at::ScalarType type, int64_t rows = 37, int64_t columns = 150, int64_t rank = 5) : random(kSeed) {
    master = random_matrix(random, rows, columns).to(at::kBFloat16).to(type);
    a = random_matrix(random, rank, columns).set_requires_grad(true);
    b = random_matrix(random, rows, rank, 0.1).set_requires_grad(true);
    gradient = random_matrix(random, rows, columns).to(type);
    counts = at::tensor(std::vector<float>{2, 0, 2, 2, 0});
  }
  SplitMix64 random;
  at::Tensor master, a, b, gradient, counts;
};

float value_at(const at::Tensor& matrix, int64_t row, int64_t column) { return matrix[row][column].item<float>(); }

// bf16(W + s sum_r c_r B_r A_r), one fp32 operation after the other.
float merged_by_hand(const OneWeight& one, int64_t row, int64_t column, float scaling, bool dropout) {
  float sum = 0;
  for (int64_t r = 0; r < one.a.size(0); ++r) {
    float factor = value_at(one.b, row, r);
    if (dropout) factor = factor * one.counts[r].item<float>();
    sum = sum + factor * value_at(one.a, r, column);
  }
  return to_float(to_bfloat16(value_at(one.master, row, column) + scaling * sum));
}

class LoraDeltaTest : public ::testing::TestWithParam<at::ScalarType> {};

TEST_P(LoraDeltaTest, MergedValuesAreRoundedOnceAndInOneOrder) {
  OneWeight one(GetParam());
  LoraDelta delta(one.a, one.b, 1.5F);
  for (const bool dropout : {false, true}) {
    if (dropout) delta.count_components(one.counts);
    const at::Tensor merged = delta.add_to(one.master);
    EXPECT_EQ(merged.scalar_type(), GetParam());
    const at::Tensor values = merged.detach().to(at::kFloat);
    for (int64_t row = 0; row < one.master.size(0); row += 6) {
      for (int64_t column = 0; column < one.master.size(1); ++column) {
        ASSERT_EQ(value_at(values, row, column), merged_by_hand(one, row, column, 1.5F, dropout));
      }
    }
  }
}

TEST_P(LoraDeltaTest, AnyNumberOfThreadsGivesTheSameBits) {
  OneWeight one(GetParam(), 300, 192);
  const int threads = at::get_num_threads();
  std::vector<at::Tensor> merged;
  for (const int count : {1, 2, 3}) {
    at::set_num_threads(count);
    merged.push_back(LoraDelta(one.a, one.b, 0.7F).add_to(one.master));
  }
  at::set_num_threads(threads);
  EXPECT_TRUE(merged[0].equal(merged[1]));
  EXPECT_TRUE(merged[0].equal(merged[2]));
}

// Against autograd of the same expression in double, without the rounding that the estimator passes straight through.
TEST_P(LoraDeltaTest, GradientsAreThoseOfTheUnroundedExpression) {
  OneWeight one(GetParam());
  one.master.set_requires_grad(true);
  for (const bool dropout : {false, true}) {
    LoraDelta delta(one.a, one.b, 1.5F);
    if (dropout) delta.count_components(one.counts);
    const auto found = torch::autograd::grad({delta.add_to(one.master)}, {one.a, one.b}, {one.gradient});

    const at::Tensor a = one.a.detach().to(at::kDouble).set_requires_grad(true);
    const at::Tensor b = one.b.detach().to(at::kDouble).set_requires_grad(true);
    const at::Tensor counted = dropout ? b * one.counts.to(at::kDouble) : b;
    const at::Tensor exact = one.master.detach().to(at::kDouble) + 1.5 * at::matmul(counted, a);
    const auto wanted = torch::autograd::grad({exact}, {a, b}, {one.gradient.to(at::kDouble)});
    for (size_t i = 0; i < 2; ++i) {
      const double largest = wanted[i].abs().max().item<double>();
      EXPECT_GT(largest, 0.1);
      EXPECT_LT((found[i] - wanted[i]).abs().max().item<double>(), 1e-6 * largest);
    }
  }
  EXPECT_FALSE(one.master.grad().defined());
}

TEST_P(LoraDeltaTest, TheFrozenMasterGetsNoGradient) {
  OneWeight one(GetParam());
  one.master.set_requires_grad(true);
  LoraDelta delta(one.a, one.b, 1);
  torch::autograd::backward({delta.add_to(one.master)}, {one.gradient});
  EXPECT_FALSE(one.master.grad().defined());
  EXPECT_TRUE(one.a.grad().defined());
  EXPECT_EQ(one.b.grad().scalar_type(), at::kFloat);
}

TEST_P(LoraDeltaTest, MergesOnceUntilSomethingChanges) {
  OneWeight one(GetParam());
  LoraDelta delta(one.a, one.b, 1);
  const at::Tensor first = delta.add_to(one.master).detach().clone();
  {
    const at::NoGradGuard no_grad;
    one.b.mul_(2);
  }
  EXPECT_TRUE(delta.add_to(one.master).equal(first));
  delta.changed();
  EXPECT_FALSE(delta.add_to(one.master).equal(first));
}

INSTANTIATE_TEST_SUITE_P(Types, LoraDeltaTest, ::testing::Values(at::kFloat, at::kBFloat16));

// A tiny model with adapters that are not zero.
struct TinyLora {
  explicit TinyLora(const std::string& plan, double dropout = 0, at::ScalarType type = at::kFloat) {
    testing::write_tiny_model(folder / "model");
    config.model = (folder / "model").string();
    config.plan = plan;
    config.seed = 3;
    config.lora.rank = 4;
    config.lora.dropout = dropout;
    base = std::make_unique<BaseModel>(config);
    model = std::make_unique<Gemma4Model>(base->config(), type);
    base->fill(*model, 0);
    for (const auto& [name, parameter] : model->parameters()) parameter.set_requires_grad(false);
    lora = attach_lora(config, *base, {}, *model);
    SplitMix64 random(kSeed);
    for (const auto& adapter : lora.adapters()) {
      adapter.b.copy_(random_matrix(random, adapter.b.size(0), adapter.b.size(1), 0.05));
    }
    lora.changed();
    trained = lora.trained_weights();
    fake_quant = base->attach_fake_quant(*model);
  }

  // The gradient of a loss with respect to some leaves.
  static std::vector<at::Tensor> gradients(const Gemma4Model& model, const std::vector<at::Tensor>& leaves) {
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < 40; ++i) ids.push_back(2 + i * 31 % 500);
    const at::Tensor tokens = at::tensor(ids, at::kLong);
    const at::Tensor hidden = model.hidden_states(PackedTokens::single(tokens));
    return torch::autograd::grad({cross_entropy_sum(model, hidden, tokens.roll(-1))}, leaves);
  }

  testing::TemporaryFolder folder;
  TrainConfig config;
  std::unique_ptr<BaseModel> base;
  std::unique_ptr<Gemma4Model> model;
  LoraAdapters lora;
  std::vector<TrainedWeight> trained;
  FakeQuantSet fake_quant;
};

class LoraModelTest : public ::testing::TestWithParam<const char*> {};

// A second model whose masters are the merged ones, all of them trained: it computes the same, and the gradients of A
// and B follow from those of its masters.
TEST_P(LoraModelTest, GradientsFollowFromThoseOfTheMergedMasters) {
  TinyLora tiny(GetParam());
  tiny.fake_quant.enable({true, false, false});
  std::vector<at::Tensor> leaves;
  for (const TrainedWeight& weight : tiny.trained) leaves.push_back(weight.parameter);
  const std::vector<at::Tensor> found = TinyLora::gradients(*tiny.model, leaves);

  Gemma4Model merged(tiny.base->config(), at::kFloat);
  std::vector<at::Tensor> masters;
  {
    const at::NoGradGuard no_grad;
    for (auto& [name, parameter] : merged.parameters()) parameter.copy_(tiny.model->merged_parameter(name));
  }
  for (const auto& adapter : tiny.lora.adapters()) {
    masters.push_back(merged.parameter(adapter.weight.name).set_requires_grad(true));
  }
  FakeQuantSet quantizers = tiny.base->attach_fake_quant(merged);
  quantizers.enable({true, false, false});
  const std::vector<at::Tensor> of_masters = TinyLora::gradients(merged, masters);
  const auto scaling = static_cast<double>(16) / 4;
  for (size_t i = 0; i < masters.size(); ++i) {
    const auto& adapter = tiny.lora.adapters()[i];
    const at::Tensor of_a = scaling * at::matmul(adapter.b.detach().t(), of_masters[i]);
    const at::Tensor of_b = scaling * at::matmul(of_masters[i], adapter.a.detach().t());
    EXPECT_GT(of_a.abs().max().item<float>(), 0) << adapter.weight.name;
    EXPECT_LE((found[2 * i] - of_a).abs().max().item<float>(), 1e-6F * of_a.abs().max().item<float>());
    EXPECT_LE((found[2 * i + 1] - of_b).abs().max().item<float>(), 1e-6F * of_b.abs().max().item<float>());
  }
}

INSTANTIATE_TEST_SUITE_P(Plans, LoraModelTest, ::testing::Values("", "q4_0", "mobile-w4"), [](const auto& tested) {
  return std::string(*tested.param == 0 ? "bf16" : tested.param).substr(0, 4);
});

TEST(LoraTest, NewAdaptersChangeNothingAndDependOnTheSeedAlone) {
  TinyLora tiny("");
  std::map<uint64_t, std::vector<at::Tensor>> first;
  for (const uint64_t seed : {7, 7, 8}) {
    Gemma4Model model(tiny.base->config(), at::kFloat);
    tiny.base->fill(model, 0);
    LoraAdapters lora(*tiny.base, model, {4, 16, 0, false}, seed);
    const WeightSpec& weight = *tiny.base->table().find("layers.2.mlp.up_proj.weight");
    lora.add(weight);
    EXPECT_TRUE(model.merged_parameter(weight.name).equal(model.parameter(weight.name)));
    const at::Tensor a = lora.adapters()[0].a;
    const double bound = 1 / std::sqrt(64.0);
    EXPECT_LE(a.abs().max().item<double>(), bound);
    EXPECT_GT(a.abs().max().item<double>(), 0.95 * bound);
    EXPECT_NEAR(a.square().mean().item<double>(), bound * bound / 3, 0.2 * bound * bound / 3);
    first[seed].push_back(a);
  }
  EXPECT_TRUE(first[7][0].equal(first[7][1]));
  EXPECT_FALSE(first[7][0].equal(first[8][0]));
}

TEST(LoraTest, DropoutFollowsFromSeedStepAndWeightAndEndsWithTheStep) {
  TinyLora tiny("", 0.5);
  const auto merged = [&] {
    std::vector<at::Tensor> all;
    for (const auto& adapter : tiny.lora.adapters())
      all.push_back(tiny.model->merged_parameter(adapter.weight.name).clone());
    return all;
  };
  const auto equal = [](const std::vector<at::Tensor>& x, const std::vector<at::Tensor>& y) {
    size_t count = 0;
    for (size_t i = 0; i < x.size(); ++i) count += x[i].equal(y[i]) ? 1 : 0;
    return count;
  };
  const auto whole = merged();
  ASSERT_TRUE(tiny.lora.drop_components(4));
  const auto fourth = merged();
  ASSERT_TRUE(tiny.lora.drop_components(5));
  EXPECT_LT(equal(fourth, merged()), fourth.size() / 2);
  ASSERT_TRUE(tiny.lora.drop_components(4));
  EXPECT_EQ(equal(fourth, merged()), fourth.size());
  EXPECT_EQ(equal(fourth, whole), 0U);
  tiny.lora.changed();
  EXPECT_EQ(equal(whole, merged()), whole.size());
}

// Each component is left out with probability p, and counts 1 / (1 - p) times otherwise: A's gradient has a zero row
// for those left out.
TEST(LoraTest, DropoutLeavesOutTheShareAskedFor) {
  TinyLora tiny("", 0.25);
  int64_t components = 0, dropped = 0;
  for (int64_t step = 0; step < 40; ++step) {
    tiny.lora.drop_components(step);
    for (const auto& adapter : tiny.lora.adapters()) {
      const at::Tensor master = tiny.model->parameter(adapter.weight.name);
      const auto gradient =
          torch::autograd::grad({adapter.delta->add_to(master)}, {adapter.a}, {at::ones_like(master)});
      dropped += gradient[0].abs().sum(1).eq(0).sum().item<int64_t>();
      components += adapter.a.size(0);
    }
  }
  EXPECT_GT(components, 3000);
  EXPECT_NEAR(static_cast<double>(dropped) / static_cast<double>(components), 0.25, 0.03);
}

TEST(LoraTest, WithoutDropoutNothingChangesBetweenSteps) {
  TinyLora tiny("");
  EXPECT_FALSE(tiny.lora.drop_components(1));
}

}  // namespace
}  // namespace qat
