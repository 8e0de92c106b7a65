// Runs of a mobile plan on a tiny model: scales that learn, start late, freeze and resume; distillation.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "gemma4/model_folder.h"
#include "gemma4/witness.h"
#include "trainers/run_folder.h"
#include "trainers/tiny_run.h"

namespace qat {
namespace {

namespace fs = std::filesystem;
using testing::bytes_of;
using testing::metrics_of;
using testing::step_losses;
using testing::TinyRun;
using testing::train;

const char* const kWeight = "layers.1.mlp.up_proj.weight";
const char* const kFrozen = "embed_tokens_per_layer.weight";

// A mobile run whose every step is kept.
std::vector<std::string> mobile(std::vector<std::string> more) {
  std::vector<std::string> overrides{"plan=mobile-w4", "kv_cache=plan", "eval.every_steps=100",
                                     "checkpoint.every_steps=1", "checkpoint.keep_last=10"};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return overrides;
}

std::vector<float> row_scales(const fs::path& run, int step, const char* weight) {
  const ModelFolder folder(run / ("step-" + std::to_string(step)));
  const auto scales = folder.row_scales(weight);
  return {scales.begin(), scales.end()};
}

StaticScales edges(const fs::path& run, int step) {
  return ModelFolder(run / ("step-" + std::to_string(step))).static_scales();
}

std::string weights(const fs::path& run, int step) {
  return bytes_of(run / ("step-" + std::to_string(step)) / "model.safetensors");
}

class MobileResume : public ::testing::TestWithParam<const char*> {};

// Weights start with step 1, activations and caches with step 2. Rates do not depend on the number of
// steps, so a run of 3 is the first half of one of 6.
TEST_P(MobileResume, SixStepsEqualThreeAndThree) {
  const TinyRun run;
  std::vector<std::string> overrides{"plan=mobile-w4",
                                     "kv_cache=plan",
                                     std::string("dtype=") + GetParam(),
                                     "optimizer.final_ratio=1",
                                     "eval.every_steps=3",
                                     "quantization.start_step=1",
                                     "quantization.activation_start_step=2",
                                     "quantization.cache_start_step=2",
                                     "quantization.scale_freeze_share=0"};
  ASSERT_EQ(train(run.config("straight", overrides)), 0);
  overrides.emplace_back("steps=3");
  ASSERT_EQ(train(run.config("halves", overrides)), 0);
  EXPECT_EQ(checkpoint_step(run.folder("halves") / "checkpoint"), 3);
  overrides.back() = "steps=6";
  ASSERT_EQ(train(run.config("halves", overrides), true), 0);
  for (const char* file : {"checkpoint/model.safetensors", "checkpoint/scales.safetensors",
                           "checkpoint/witness.safetensors", "step-3/scales.safetensors", "state.h5"}) {
    EXPECT_TRUE(bytes_of(run.folder("straight") / file) == bytes_of(run.folder("halves") / file)) << file;
  }
  EXPECT_EQ(metrics_of(run.folder("straight")), metrics_of(run.folder("halves")));
}

INSTANTIATE_TEST_SUITE_P(Types, MobileResume, ::testing::Values("float32", "bfloat16"));

float largest_of_row(const ModelFolder& folder, const WeightSpec& weight, int64_t row) {
  const auto* values =
      reinterpret_cast<const BFloat16*>(folder.masters().of(weight).bytes.data()) + row * weight.columns();
  float largest = 0;
  for (int64_t i = 0; i < weight.columns(); ++i) largest = std::max(largest, std::fabs(to_float(values[i])));
  return largest;
}

// The scales do not learn here, so they move only where they are found again.
TEST(MobileRun, APartThatStartsLateFindsItsScalesFromTheWeightsOfThen) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("a", mobile({"quantization.start_step=2", "quantization.activation_start_step=4",
                                          "quantization.learn_scales=false", "quantization.row_scales=absolute_max",
                                          "optimizer.learning_rate=1e-2"}))),
            0);
  const fs::path out = run.folder("a");
  EXPECT_EQ(row_scales(out, 1, kWeight), row_scales(out, 2, kWeight));
  EXPECT_NE(row_scales(out, 2, kWeight), row_scales(out, 3, kWeight));
  for (const int step : {4, 5, 6}) EXPECT_EQ(row_scales(out, step, kWeight), row_scales(out, 3, kWeight)) << step;
  // Found before the third step, from the masters that the checkpoint of the second holds in BF16.
  const ModelFolder before(out / "step-2");
  const WeightSpec& weight = *before.table().find(kWeight);
  const auto found = row_scales(out, 3, kWeight);
  for (int64_t row = 0; row < weight.rows(); ++row) {
    const float wanted = largest_of_row(before, weight, row) / 7;
    EXPECT_NEAR(found[static_cast<size_t>(row)], wanted, 0.004F * wanted) << row;
  }

  EXPECT_EQ(edges(out, 1).linears, edges(out, 4).linears);
  EXPECT_NE(edges(out, 4).linears.at(kWeight).output, edges(out, 5).linears.at(kWeight).output);
  EXPECT_EQ(edges(out, 5).linears, edges(out, 6).linears);
  // Caches start with the weights.
  EXPECT_EQ(edges(out, 1).caches, edges(out, 2).caches);
  EXPECT_NE(edges(out, 2).caches.at(0).key, edges(out, 3).caches.at(0).key);
  EXPECT_EQ(edges(out, 3).caches, edges(out, 6).caches);
  EXPECT_FLOAT_EQ(edges(out, 6).caches.at(0).value, 6.0F / 127);
}

TEST(MobileRun, ScalesLearnAndStayInTheLastPart) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("a", mobile({"quantization.scale_freeze_share=0.5"}))), 0);
  const fs::path out = run.folder("a");
  for (const int step : {1, 2}) {
    EXPECT_NE(row_scales(out, step, kWeight), row_scales(out, step + 1, kWeight));
    EXPECT_NE(edges(out, step).linears.at(kWeight).input, edges(out, step + 1).linears.at(kWeight).input);
    EXPECT_NE(edges(out, step).caches.at(1).key, edges(out, step + 1).caches.at(1).key);
  }
  for (const int step : {4, 5, 6}) {
    EXPECT_TRUE(bytes_of(out / ("step-" + std::to_string(step)) / "scales.safetensors") ==
                bytes_of(out / "step-3" / "scales.safetensors"));
    EXPECT_FALSE(weights(out, step) == weights(out, step - 1));
  }
  // A frozen weight keeps its scales, too.
  EXPECT_EQ(row_scales(out, 1, kFrozen), row_scales(out, 6, kFrozen));
  EXPECT_EQ(Witness::load(out / "checkpoint" / "witness.safetensors").edges.contains("layers.1.mlp.input"), true);
}

TEST(MobileRun, ScalesOfACheckpointAreTheStartOfTheNextRun) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("a", mobile({}))), 0);
  const std::string base = (run.folder("a") / "checkpoint").string();
  ASSERT_EQ(train(run.config("b", mobile({"model=" + base, "initialize=pretrained", "quantization.learn_scales=false",
                                          "quantization.start_step=2"}))),
            0);
  EXPECT_TRUE(bytes_of(run.folder("b") / "checkpoint/scales.safetensors") ==
              bytes_of(fs::path(base) / "scales.safetensors"));
}

TEST(MobileRun, DistillingFromTheModelItselfLosesOnlyWhatQuantizationCosts) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("base", {"plan=", "kv_cache=none", "steps=10", "optimizer.learning_rate=4e-3"})), 0);
  const std::string base = (run.folder("base") / "checkpoint").string();
  const std::vector<std::string> distil{"model=" + base, "initialize=pretrained", "objective=forward_kl",
                                        "eval.every_steps=100"};
  auto plain = distil;
  plain.insert(plain.end(), {"plan=", "kv_cache=none", "steps=2"});
  ASSERT_EQ(train(run.config("plain", plain)), 0);
  EXPECT_NEAR(step_losses(run.folder("plain")).front(), 0, 1e-6);

  auto quantized = distil;
  quantized.insert(quantized.end(), {"plan=mobile-e2b", "kv_cache=plan", "steps=30", "teacher=" + base});
  ASSERT_EQ(train(run.config("quantized", quantized)), 0);
  const auto losses = step_losses(run.folder("quantized"));
  EXPECT_GT(losses.front(), 1e-3);
  double last = 0;
  for (size_t i = losses.size() - 5; i < losses.size(); ++i) last += losses[i] / 5;
  EXPECT_LT(last, 0.5 * losses.front());
}

}  // namespace
}  // namespace qat
