#include "model/chunked_head.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <torch/csrc/autograd/autograd.h>

#include <nlohmann/json.hpp>

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

// A vocabulary that is large enough for chunks of several parts and inputs of several chunks.
std::unique_ptr<Gemma4Model> model_with_large_vocabulary(at::ScalarType dtype, double softcap) {
  const nlohmann::json config = {{"model_type", "gemma4_text"},
                                 {"vocab_size", 40000},
                                 {"hidden_size", 16},
                                 {"num_hidden_layers", 1},
                                 {"intermediate_size", 16},
                                 {"num_attention_heads", 1},
                                 {"num_key_value_heads", 1},
                                 {"head_dim", 16},
                                 {"global_head_dim", 16},
                                 {"layer_types", {"full_attention"}},
                                 {"hidden_size_per_layer_input", 0},
                                 {"sliding_window", 8},
                                 {"final_logit_softcapping", softcap}};
  auto model = std::make_unique<Gemma4Model>(Gemma4Config::parse(config, "test"), dtype);
  initialize_weights(*model, 7);
  return model;
}

TEST(ChunkedHead, LogitsAreThoseOfTheModelInAnySteps) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const auto model = model_with_large_vocabulary(dtype, 30);
    const int64_t chunk = head_chunk_tokens(40000, dtype == at::kFloat ? 4 : 2);
    const int64_t tokens = 2 * chunk + 7;
    ASSERT_LT(head_loss_rows(40000), chunk);
    const at::Tensor hidden = at::randn({tokens, 16}).to(dtype);
    const at::Tensor wanted = model->logits(hidden);
    ChunkedLogits logits(model->head(), 30, hidden);
    int64_t next = 0;
    logits.for_each([&](const at::Tensor& rows, int64_t first) {
      ASSERT_EQ(first, next);
      next += rows.size(0);
      // Rows of a product may be summed in another order when there are fewer of them: a unit in the last place.
      EXPECT_LE(relative_difference(rows, wanted.narrow(0, first, rows.size(0))), dtype == at::kFloat ? 1e-5 : 1e-2);
    });
    EXPECT_EQ(next, tokens);
  }
}

TEST(ChunkedHead, PartsOfAChunkAddUp) {
  for (const double softcap : {0.0, 30.0}) {
    const auto model = model_with_large_vocabulary(at::kFloat, softcap);
    const int64_t tokens = head_chunk_tokens(40000, 4) + 5;
    const at::Tensor hidden = at::randn({tokens, 16}).requires_grad_(true);
    const at::Tensor targets = at::randint(0, 40000, {tokens}, at::TensorOptions(at::kLong));
    const Outcome exact = run(*model, hidden, [&] { return loss_of_all_logits(*model, hidden, targets); });
    const Outcome found = run(*model, hidden, [&] { return cross_entropy_sum(*model, hidden, targets); });
    EXPECT_NEAR(found.loss, exact.loss, 1e-5 * exact.loss);
    EXPECT_LE(relative_difference(found.of_hidden, exact.of_hidden), 1e-5);
    EXPECT_LE(relative_difference(found.of_weight, exact.of_weight), 1e-5);
  }
}

// 2,048 tokens of Gemma 4's vocabulary: products, logits and all that is computed from them.
TEST(ChunkedHead, BuffersOfALargeVocabularyStaySmall) {
  for (const int64_t value_bytes : {2, 4}) {
    const int64_t products = 2 * head_chunk_tokens(262144, value_bytes) * 262144 * value_bytes;
    const int64_t losses = 6 * head_loss_rows(262144) * 262144 * 4;
    EXPECT_LE(products + losses, int64_t{64} << 20) << "with a teacher, value of " << value_bytes << " bytes";
  }
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
