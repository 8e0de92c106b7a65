// What evaluations tell about codes, and the report that a run leaves behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "trainers/tiny_run.h"

namespace qat {
namespace {

using testing::bytes_of;
using ::testing::HasSubstr;
using testing::metrics_of;
using ::testing::Not;
using testing::TinyRun;
using testing::train;

std::vector<nlohmann::json> quantization_lines(const std::filesystem::path& run) {
  std::vector<nlohmann::json> lines;
  for (const std::string& line : metrics_of(run)) {
    auto json = nlohmann::json::parse(line);
    if (json["kind"] == "quantization") lines.push_back(std::move(json));
  }
  return lines;
}

TEST(CodeChangesOfARun, AreToldForEveryWeightThatLearnsFromTheSecondEvaluationOn) {
  const TinyRun run;
  for (const char* plan : {"q4_0", "mobile-w4"}) {
    SCOPED_TRACE(plan);
    ASSERT_EQ(train(run.config(
                  plan, {join("plan=", plan), "kv_cache=plan", "freeze=[\"mlp_up\"]", "optimizer.learning_rate=1e-2"})),
              0);
    const auto lines = quantization_lines(run.folder(plan));
    ASSERT_EQ(lines.size(), 4U);
    EXPECT_FALSE(lines[0].contains("codes_changed"));
    for (size_t i = 1; i < 4; ++i) {
      EXPECT_GT(lines[i]["codes_changed"], 0.01);
      EXPECT_LT(lines[i]["codes_changed"], 1);
      EXPECT_LE(lines[i]["codes_returned"], lines[i]["codes_changed"]);
      const auto& quantizers = lines[i]["quantizers"];
      EXPECT_TRUE(quantizers["layers.0.mlp.down_proj.weight"].contains("codes_changed"));
      EXPECT_FALSE(quantizers["layers.0.mlp.up_proj.weight"].contains("codes_changed"));
      EXPECT_GT(quantizers["layers.0.mlp.up_proj.weight"]["signal_to_noise_db"], 10);
    }
    EXPECT_EQ(lines[1]["codes_returned"], 0);
    EXPECT_GT(lines[3]["codes_returned"], 0);
  }
}

// The adapters move the codes of weights whose masters are frozen.
TEST(CodeChangesOfARun, FollowAdapters) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("base", {"plan=", "kv_cache=none", "steps=2"})), 0);
  ASSERT_EQ(train(run.config("a", {"model=" + (run.folder("base") / "checkpoint").string(), "initialize=pretrained",
                                   "lora.rank=4", "lora.roles=[\"mlp_up\"]", "optimizer.learning_rate=1e-2"})),
            0);
  const auto last = quantization_lines(run.folder("a")).back();
  EXPECT_GT(last["quantizers"]["layers.0.mlp.up_proj.weight"]["codes_changed"], 0.01);
  EXPECT_FALSE(last["quantizers"]["layers.0.mlp.down_proj.weight"].contains("codes_changed"));
}

TEST(ReportOfARun, IsWrittenAtSavesAndSaysWhereTheRunStands) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("a", {"steps=3", "about=A <tiny> run."})), 0);
  const std::string html = bytes_of(run.folder("a") / "report.html");
  for (const char* part : {"Training run a", "A &lt;tiny&gt; run.", "plan q4_0", "Step 3 of 3: complete.",
                           "held-out loss", "Learning rate", "Gradient norm before clipping", "Throughput",
                           "Peak memory of the process", "Codes that changed between evaluations",
                           "Signal to noise: weights of attention", "largest errors", "optimizer.learning_rate"}) {
    EXPECT_THAT(html, HasSubstr(part));
  }
  EXPECT_THAT(html, Not(HasSubstr("nan")));
  ASSERT_EQ(train(run.config("a", {"steps=6", "about=A <tiny> run."}), true), 0);
  EXPECT_THAT(bytes_of(run.folder("a") / "report.html"), HasSubstr("Step 6 of 6: complete."));
}

// Plain BF16 has no quantizers to report on.
TEST(ReportOfARun, OfPlainFineTuningLeavesQuantizationOut) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("a", {"plan=", "kv_cache=none", "data.eval=[]"})), 0);
  const std::string html = bytes_of(run.folder("a") / "report.html");
  EXPECT_THAT(html, HasSubstr("fine-tuned in plain BF16"));
  EXPECT_THAT(html, Not(HasSubstr("Signal to noise")));
  EXPECT_THAT(html, Not(HasSubstr("held-out loss")));
}

}  // namespace
}  // namespace qat
