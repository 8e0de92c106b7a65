// Losses and gradients of the objectives with a teacher, against plain autograd over all logits.
#include "trainers/distillation.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <tuple>

#include "model/golden_models.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"
#include "support/tiny_model_folder.h"
#include "trainers/divergence.h"
#include "trainers/tiny_run.h"

namespace qat {
namespace {

using testing::golden_model;
using testing::relative_difference;
using testing::TinyRun;

// More than one chunk of the head, and a part of one.
constexpr int64_t kTokens = 2 * 512;

// A teacher with the golden model's soft-capped head and states of its own.
class RandomTeacher final : public Teacher {
 public:
  explicit RandomTeacher(const TrainingBatch& batch)
      : model_(golden_model("e2b")), states_(at::randn({batch.trained_tokens, model_->config().hidden_size})) {}
  at::Tensor trained_states(const TrainingBatch&) const override { return states_; }
  ChunkedLogits logits(const at::Tensor& states) const override {
    return {model_->head(), model_->config().final_logit_softcap, states};
  }
  at::Tensor all_logits() const { return model_->logits(states_).detach(); }

 private:
  std::unique_ptr<Gemma4Model> model_;
  at::Tensor states_;
};

struct Case {
  explicit Case(at::ScalarType dtype)
      : model(golden_model("e2b", dtype)),
        hidden(at::randn({kTokens, model->config().hidden_size}).to(dtype).requires_grad_(true)) {
    batch.input.tokens = at::arange(kTokens, at::TensorOptions(at::kLong));
    batch.targets = at::randint(0, model->config().vocabulary_size, {kTokens}, at::TensorOptions(at::kLong));
    batch.targets.slice(0, 0, std::nullopt, 4).fill_(-100);
    batch.trained_tokens = batch.trained_positions().numel();
    model->head().weight.set_requires_grad(true);
  }
  at::Tensor trained_hidden() const { return hidden.index_select(0, batch.trained_positions()); }

  std::unique_ptr<Gemma4Model> model;
  at::Tensor hidden;
  TrainingBatch batch;
};

struct Outcome {
  double loss;
  at::Tensor of_hidden;
  at::Tensor of_weight;
};

Outcome differentiate(const Case& data, const at::Tensor& loss) {
  const auto gradients = torch::autograd::grad({loss * 0.25}, {data.hidden, data.model->head().weight});
  return {loss.item<double>(), gradients[0], gradients[1]};
}

TrainConfig config_of(const std::string& objective, double temperature, double share) {
  TrainConfig config;
  config.objective = objective;
  config.distillation.temperature = temperature;
  config.distillation.cross_entropy_share = share;
  config.distillation.beta = 0.3;
  return config;
}

// The definitions, on whole probabilities.
at::Tensor kl(const at::Tensor& p, const at::Tensor& q) { return (p * (p.log() - q.log())).sum(); }

at::Tensor loss_of_all_logits(const Case& data, const TrainConfig& config, const at::Tensor& teacher_logits) {
  const double temperature = config.distillation.temperature;
  const at::Tensor logits = data.model->logits(data.trained_hidden());
  const at::Tensor q = at::softmax(teacher_logits / temperature, -1);
  const at::Tensor p = at::softmax(logits / temperature, -1);
  at::Tensor divergence;
  if (config.objective == "forward_kl") divergence = kl(q, p);
  if (config.objective == "reverse_kl") divergence = kl(p, q);
  if (config.objective == "jensen_shannon") {
    const double beta = config.distillation.beta;
    const at::Tensor m = beta * q + (1 - beta) * p;
    divergence = beta * kl(q, m) + (1 - beta) * kl(p, m);
  }
  const at::Tensor targets = data.batch.targets.index_select(0, data.batch.trained_positions());
  const at::Tensor cross_entropy = at::cross_entropy_loss(logits, targets, {}, /*sum*/ 2, -100);
  const double share = config.distillation.cross_entropy_share;
  return (1 - share) * temperature * temperature * divergence + share * cross_entropy;
}

class DistillationTest : public ::testing::TestWithParam<std::tuple<const char*, double, double>> {
 protected:
  static TrainConfig config() {
    return config_of(std::get<0>(GetParam()), std::get<1>(GetParam()), std::get<2>(GetParam()));
  }
};

// Both sides sum some 200 rows of 576 fp32 terms, in different orders and from differently rounded logarithms: hundreds
// of roundings of 6e-8 that mostly cancel stay below 1e-5.
TEST_P(DistillationTest, EqualsAutogradOverAllLogits) {
  const Case data(at::kFloat);
  auto teacher = std::make_unique<RandomTeacher>(data.batch);
  const Outcome wanted = differentiate(data, loss_of_all_logits(data, config(), teacher->all_logits()));
  const auto objective = make_distillation(config(), std::move(teacher));
  const Outcome found = differentiate(data, objective->loss_sum(*data.model, data.hidden, data.batch));
  EXPECT_GT(wanted.loss, 1);
  EXPECT_NEAR(found.loss, wanted.loss, 1e-5 * wanted.loss);
  EXPECT_LE(relative_difference(found.of_hidden, wanted.of_hidden), 1e-5);
  EXPECT_LE(relative_difference(found.of_weight, wanted.of_weight), 1e-5);
}

// The head's product is rounded to 8 bits before the loss, in training and here; gradients are rounded once more.
TEST_P(DistillationTest, InBf16EqualsAutogradUpToRounding) {
  const Case data(at::kBFloat16);
  auto teacher = std::make_unique<RandomTeacher>(data.batch);
  const Outcome wanted = differentiate(data, loss_of_all_logits(data, config(), teacher->all_logits()));
  const auto objective = make_distillation(config(), std::move(teacher));
  const Outcome found = differentiate(data, objective->loss_sum(*data.model, data.hidden, data.batch));
  EXPECT_NEAR(found.loss, wanted.loss, 1e-5 * wanted.loss);
  EXPECT_EQ(found.of_hidden.scalar_type(), at::kBFloat16);
  EXPECT_LE(relative_difference(found.of_hidden, wanted.of_hidden), 1e-2);
  EXPECT_LE(relative_difference(found.of_weight, wanted.of_weight), 1e-2);
}

INSTANTIATE_TEST_SUITE_P(Objectives, DistillationTest,
                         ::testing::Combine(::testing::Values("forward_kl", "reverse_kl", "jensen_shannon"),
                                            ::testing::Values(1.0, 2.0), ::testing::Values(0.0, 0.25)));

TEST(Distillation, PlainForwardKlIsTheBareFormulaBitForBit) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Case data(dtype);
    auto teacher = std::make_unique<RandomTeacher>(data.batch);
    const at::Tensor teacher_states = teacher->trained_states(data.batch);
    const LogitsLossFunction formula = [&](const at::Tensor& logits, int64_t first, bool) {
      const at::Tensor log_q = at::log_softmax(teacher->logits(teacher_states.narrow(0, first, logits.size(0))).rows(0, logits.size(0)), -1);
      const at::Tensor log_p = at::log_softmax(logits, -1);
      const at::Tensor q = log_q.exp();
      return LogitsLoss{(q * (log_q - log_p)).sum(), log_p.exp().sub_(q)};
    };
    const Outcome wanted = differentiate(data, loss_sum_through_head(*data.model, data.trained_hidden(), formula));
    const auto objective = make_distillation(config_of("forward_kl", 1, 0), std::move(teacher));
    const Outcome found = differentiate(data, objective->loss_sum(*data.model, data.hidden, data.batch));
    EXPECT_EQ(found.loss, wanted.loss);
    EXPECT_TRUE(found.of_hidden.equal(wanted.of_hidden));
    EXPECT_TRUE(found.of_weight.equal(wanted.of_weight));
  }
}

TEST(Distillation, DivergencesOfEqualDistributionsAreZeroAndOfDistantOnesFinite) {
  const at::Tensor near = at::log_softmax(at::randn({5, 576}), -1);
  // 200 apart: one side's probabilities are zero in fp32 where the other's are one.
  at::Tensor far = at::randn({5, 576});
  far.select(1, 7).add_(200);
  far = at::log_softmax(far, -1);
  const auto all = [](const at::Tensor& teacher, const at::Tensor& model) {
    return std::vector<LogitsLoss>{forward_kl(teacher, model, true), reverse_kl(teacher, model, true),
                                   jensen_shannon(teacher, model, 0.3, true)};
  };
  for (const LogitsLoss& loss : all(near, near)) {
    EXPECT_NEAR(loss.sum.item<double>(), 0, 1e-5);
    EXPECT_NEAR(loss.gradient.abs().max().item<double>(), 0, 1e-6);
  }
  for (const auto& [teacher, model] : {std::pair(near, far), std::pair(far, near)}) {
    for (const LogitsLoss& loss : all(teacher, model)) {
      EXPECT_GT(loss.sum.item<double>(), 1);
      EXPECT_TRUE(std::isfinite(loss.sum.item<double>()));
      EXPECT_TRUE(std::isfinite(loss.gradient.abs().max().item<double>()));
    }
  }
}

TEST(Distillation, ATeacherWithAnotherVocabularyIsRefused) {
  const testing::TemporaryFolder folder;
  testing::write_tiny_model(folder / "teacher");
  TrainConfig config = config_of("forward_kl", 1, 0);
  config.teacher = (folder / "teacher").string();
  Gemma4Config student;
  student.vocabulary_size = 575;
  testing::expect_error([&] { open_teacher(config, student); }, {"teacher: ", "has 576 tokens, the model 575"});
}

TEST(Distillation, EveryObjectiveTrains) {
  const TinyRun run;
  testing::write_tiny_model(run.folder("teacher"));
  for (const char* objective : {"forward_kl", "reverse_kl", "jensen_shannon"}) {
    const TrainConfig config =
        run.config(objective, {std::string("objective=") + objective, "teacher=" + run.folder("teacher").string(),
                               "steps=20", "optimizer.learning_rate=1e-2", "distillation.temperature=2",
                               "distillation.cross_entropy_share=0.1", "eval.every_steps=0"});
    ASSERT_EQ(testing::train(config), 0) << objective;
    const auto losses = testing::step_losses(run.folder(objective));
    EXPECT_LT(losses.back(), 0.9 * losses.front()) << objective;
  }
}

TEST(Distillation, SettingsThatContradictOneAnotherAreProblems) {
  const TinyRun run;
  const std::string teacher = "teacher=" + run.model().string();
  testing::expect_error(
      [&] {
        run.config("a", {"objective=reverse_kl", teacher, "distillation.temperature=0", "distillation.beta=1",
                         "distillation.cross_entropy_share=1"});
      },
      {"distillation.temperature: must be above 0, found 0", "distillation.beta: must be above 0 and below 1, found 1",
       "distillation.beta: needs objective = jensen_shannon",
       "distillation.cross_entropy_share: must be at least 0 and below 1, found 1"});
  testing::expect_error(
      [&] {
        run.config("a", {teacher, "distillation.temperature=2", "objective=cross_entropy"});
      },
      {"teacher: needs objective = forward_kl, reverse_kl or jensen_shannon",
       "distillation.temperature: needs objective"});
  testing::expect_error([&] { run.config("a", {"objective=jensen_shannon"}); },
                        {"jensen_shannon to random weights says nothing"});
}

}  // namespace
}  // namespace qat
