#include "trainers/sensitivity.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "fake_quant/prepare.h"
#include "support/tiny_model_folder.h"
#include "trainers/tiny_run.h"

namespace qat {
namespace {

class SensitivityTest : public ::testing::Test {
 protected:
  SensitivityTest() {
    testing::write_random_weights(run_.model(), 7);
    folder_ = std::make_unique<ModelFolder>(run_.model());
    model_ = std::make_unique<Gemma4Model>(folder_->config(), at::kFloat);
    load_weights(*model_, folder_->tensors());
    batches_ = TrainingData(run_.config("unused"), folder_->config()).first_rows(2);
    sensitivity_ = std::make_unique<Sensitivity>(*model_, batches_);
  }
  ResolvedPlan plan(const std::string& name) const { return QuantPlan::load(name).resolve(folder_->table()); }
  // The same weights in blocks of eight bits.
  ResolvedPlan finer() const {
    ResolvedPlan finer = plan("q4_0");
    for (auto& [name, rule] : finer.weights) rule.scheme = rule.scheme == Scheme::Q4_0 ? Scheme::Q8_0 : rule.scheme;
    return finer;
  }
  static bool all(const WeightSpec&) { return true; }
  static bool none(const WeightSpec&) { return false; }

  const at::NoGradGuard no_grad_;
  testing::TinyRun run_;
  std::unique_ptr<ModelFolder> folder_;
  std::unique_ptr<Gemma4Model> model_;
  std::vector<TrainingBatch> batches_;
  std::unique_ptr<Sensitivity> sensitivity_;
};

TEST_F(SensitivityTest, LeavesTheModelAsItWas) {
  EXPECT_EQ(sensitivity_->divergence(plan("q4_0"), none), 0);
  EXPECT_GT(sensitivity_->divergence(plan("q4_0"), all), 0);
  ResolvedPlan cached = plan("q4_0");
  cached.key_value_cache = Scheme::Q8_0;
  EXPECT_GT(sensitivity_->cache_divergence(cached), 0);
  EXPECT_GT(sensitivity_->divergence(plan("mobile-e2b"), all), 0);
  EXPECT_EQ(sensitivity_->divergence(plan("q4_0"), none), 0);
}

TEST_F(SensitivityTest, MeasuresWhatTheWholePlanDoes) {
  const double found = sensitivity_->divergence(finer(), all);
  ProcessGroup alone;
  const ReferenceStates reference(*model_, batches_, /*keeps_head=*/true, alone);
  const FakeQuantSet quantizers = prepare(*model_, finer(), {});
  EXPECT_EQ(found, evaluate_held_out(*model_, batches_, &reference, alone)->kl);
}

TEST_F(SensitivityTest, MoreBitsLoseLess) {
  for (const ModelPart& part : quantized_parts(folder_->table(), plan("q4_0"))) {
    const auto chosen = [&](const WeightSpec& weight) { return part.holds(weight); };
    EXPECT_LT(sensitivity_->divergence(finer(), chosen), sensitivity_->divergence(plan("q4_0"), chosen)) << part.name();
  }
}

TEST_F(SensitivityTest, PartsHoldEveryQuantizedWeightOnce) {
  const ResolvedPlan quantized = plan("mobile-e2b");
  const auto parts = quantized_parts(folder_->table(), quantized);
  for (const WeightSpec& weight : folder_->table().weights()) {
    const auto holders =
        std::count_if(parts.begin(), parts.end(), [&](const ModelPart& part) { return part.holds(weight); });
    EXPECT_EQ(holders, scheme(quantized.of(weight.name).scheme).is_quantized() ? 1 : 0) << weight.name;
  }
}

}  // namespace
}  // namespace qat
