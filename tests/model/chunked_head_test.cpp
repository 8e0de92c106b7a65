#include "model/chunked_head.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/golden_models.h"

namespace qat {
namespace {

using testing::golden_model;
using testing::relative_difference;

constexpr int64_t kRows = 29;

at::Tensor random_hidden(const Gemma4Model& model) {
  return at::randn({kRows, model.config().hidden_size}).to(model.dtype()).requires_grad_(true);
}

at::Tensor some_targets(const Gemma4Model& model) {
  at::Tensor targets = at::randint(0, model.config().vocabulary_size, {kRows}, at::TensorOptions(at::kLong));
  targets.slice(0, 0, std::nullopt, 4).fill_(-100);
  return targets;
}

at::Tensor loss_of_all_logits(const Gemma4Model& model, const at::Tensor& hidden, const at::Tensor& targets) {
  return at::cross_entropy_loss(model.logits(hidden), targets, {}, /*sum*/ 2, -100);
}

struct Outcome {
  float loss;
  at::Tensor of_hidden;
  at::Tensor of_weight;
};

template <class Loss>
Outcome run(Gemma4Model& model, const at::Tensor& hidden, Loss&& loss_of) {
  hidden.mutable_grad() = at::Tensor();
  at::Tensor weight = model.head().weight;
  weight.set_requires_grad(true).mutable_grad() = at::Tensor();
  const at::Tensor loss = loss_of() * 0.25;
  torch::autograd::backward({loss}, {});
  return {loss.item<float>(), hidden.grad(), weight.grad()};
}

TEST(ChunkedHead, EqualsTheLossOfAllLogitsForAnyChunk) {
  for (const char* kind : {"e2b", "gemma3"}) {  // with and without soft-cap
    const auto model = golden_model(kind);
    const at::Tensor hidden = random_hidden(*model);
    const at::Tensor targets = some_targets(*model);
    const Outcome exact = run(*model, hidden, [&] { return loss_of_all_logits(*model, hidden, targets); });
    for (const int64_t chunk : {1, 5, 22, 128}) {
      const Outcome found = run(*model, hidden, [&] { return cross_entropy_sum(*model, hidden, targets, chunk); });
      EXPECT_NEAR(found.loss, exact.loss, 1e-5 * exact.loss) << kind << " chunk " << chunk;
      EXPECT_LE(relative_difference(found.of_hidden, exact.of_hidden), 1e-5) << kind << " chunk " << chunk;
      EXPECT_LE(relative_difference(found.of_weight, exact.of_weight), 1e-5) << kind << " chunk " << chunk;
    }
  }
}

TEST(ChunkedHead, InBf16EqualsTheLossOfAllLogitsUpToRounding) {
  const auto model = golden_model("e2b", at::kBFloat16);
  const at::Tensor hidden = random_hidden(*model);
  const at::Tensor targets = some_targets(*model);
  const Outcome exact = run(*model, hidden, [&] { return loss_of_all_logits(*model, hidden, targets); });
  const Outcome found = run(*model, hidden, [&] { return cross_entropy_sum(*model, hidden, targets, 8); });
  EXPECT_NEAR(found.loss, exact.loss, 1e-5 * exact.loss);
  EXPECT_EQ(found.of_hidden.scalar_type(), at::kBFloat16);
  EXPECT_LE(relative_difference(found.of_hidden, exact.of_hidden), 1e-2);
  EXPECT_LE(relative_difference(found.of_weight, exact.of_weight), 1e-2);
}

TEST(ChunkedHead, RowsWithoutTargetGetNoGradientAndNoTargetsGiveZero) {
  const auto model = golden_model("e2b");
  const at::Tensor hidden = random_hidden(*model);
  const at::Tensor targets = some_targets(*model);
  const Outcome found = run(*model, hidden, [&] { return cross_entropy_sum(*model, hidden, targets); });
  EXPECT_EQ(found.of_hidden.slice(0, 0, std::nullopt, 4).abs().max().item<float>(), 0);
  const at::Tensor none = at::full({kRows}, -1, at::TensorOptions(at::kLong));
  const Outcome empty = run(*model, hidden, [&] { return cross_entropy_sum(*model, hidden, none); });
  EXPECT_EQ(empty.loss, 0);
  EXPECT_EQ(empty.of_hidden.abs().max().item<float>(), 0);
}

TEST(ChunkedHead, ComputesNoGradientThatNobodyWants) {
  const auto model = golden_model("e2b");
  const at::Tensor hidden = random_hidden(*model);
  const at::Tensor targets = some_targets(*model);
  int wanted = 0;
  const LogitsLossFunction loss = [&](const at::Tensor& logits, int64_t, bool gradient_is_wanted) {
    wanted += gradient_is_wanted;
    return LogitsLoss{logits.sum(), gradient_is_wanted ? at::full(logits.sizes(), 1.0f) : at::Tensor()};
  };
  const at::Tensor with = loss_sum_through_head(*model, hidden, loss);
  EXPECT_EQ(wanted, 1);
  EXPECT_TRUE(with.requires_grad());
  const at::NoGradGuard no_gradients;
  EXPECT_FALSE(loss_sum_through_head(*model, hidden, loss).requires_grad());
  EXPECT_EQ(wanted, 1);
}

// An output transform takes part in value and derivative.
class Doubling final : public ActivationTransform {
 public:
  at::Tensor apply(const at::Tensor& activation) override { return activation * 2; }
};

TEST(ChunkedHead, AppliesTheTransformsOfTheHead) {
  const auto model = golden_model("e2b");
  const at::Tensor hidden = random_hidden(*model);
  const at::Tensor targets = some_targets(*model);
  model->projection("embed_tokens.weight").output_transform = std::make_shared<Doubling>();
  model->projection("embed_tokens.weight").input_transform = std::make_shared<Doubling>();
  const Outcome exact = run(*model, hidden, [&] { return loss_of_all_logits(*model, hidden, targets); });
  const Outcome found = run(*model, hidden, [&] { return cross_entropy_sum(*model, hidden, targets, 6); });
  EXPECT_NEAR(found.loss, exact.loss, 1e-5 * exact.loss);
  EXPECT_LE(relative_difference(found.of_hidden, exact.of_hidden), 1e-5);
  EXPECT_LE(relative_difference(found.of_weight, exact.of_weight), 1e-5);
}

}  // namespace
}  // namespace qat
