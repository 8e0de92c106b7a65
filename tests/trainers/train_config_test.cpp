#include "trainers/train_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "support/expect_error.h"
#include "trainers/tiny_run.h"

namespace qat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::TinyRun;

TEST(TrainConfigTest, ReportsEveryProblemAtOnce) {
  const TinyRun run;
  const nlohmann::json document = {{"model", run.model().string()},
                                   {"out", "run"},
                                   {"plam", "q4_0"},
                                   {"plan", "q4_O"},
                                   {"steps", 0},
                                   {"dtype", "fp8"},
                                   {"optimizer", {{"lerning_rate", 1}, {"beta1", 1.5}, {"final_ratio", "much"}}},
                                   {"data", {{"train", {"absent.jsonl"}}, {"chat_template", "llama"}}},
                                   {"freeze", {"mlp_dawn"}},
                                   {"eval", {{"metric", "kl"}}}};
  testing::expect_error(
      [&] {
        TrainConfig::parse(document, {"sequence_length=1", "seed"}, "here.json");
      },
      {"here.json", "plam: no such field; did you mean \"plan\"?", "plan: plan \"q4_O\"", "did you mean \"q4_0\"",
       "steps: must be 1 or more, found 0", "dtype: must be one of auto, bfloat16, float32",
       "optimizer.lerning_rate: no such field; did you mean \"learning_rate\"?", "optimizer.beta1: must be at least 0",
       "optimizer.final_ratio: must be a number", "data.train: there is no file absent.jsonl",
       "data.chat_template: ", "did you mean \"mlp_down\"?", "eval.metric: kl needs data.eval",
       "sequence_length: must be 2 or more, found 1", "key=value"});
}

TEST(TrainConfigTest, ErrorsHaveTheExitCodeOfAWrongConfiguration) {
  try {
    TrainConfig::parse(nlohmann::json::object(), {}, "here.json");
    FAIL() << "an empty configuration was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::Usage);
    EXPECT_THAT(error.what(), HasSubstr("model: is required"));
    EXPECT_THAT(error.what(), HasSubstr("out: is required"));
  }
}

TEST(TrainConfigTest, OverridesWinAndEveryFieldIsWrittenBack) {
  const TinyRun run;
  const TrainConfig config = run.config(
      "a", {"optimizer.learning_rate=3e-5", "plan=bf16", "freeze=[\"norm\",\"mlp_up\"]", "data.shuffle=false"});
  EXPECT_EQ(config.optimizer.learning_rate, 3e-5);
  EXPECT_EQ(config.plan, "bf16");
  EXPECT_THAT(config.freeze, ElementsAre("norm", "mlp_up"));
  EXPECT_FALSE(config.data.shuffle);
  const TrainConfig again = TrainConfig::parse(config.to_json(), {}, "again");
  EXPECT_EQ(again.to_json(), config.to_json());
  EXPECT_EQ(config.to_json()["optimizer"]["beta2"], 0.95);
}

TEST(TrainConfigTest, ContradictionsAreProblems) {
  const TinyRun run;
  testing::expect_error([&] { run.config("a", {"quantization.start_step=6"}); },
                        {"quantization.start_step", "never be used"});
  testing::expect_error([&] { run.config("a", {"plan="}); }, {"kv_cache: q8_0 needs a plan"});
  testing::expect_error([&] { run.config("a", {"eval.metric=kl"}); }, {"kl to random weights"});
}

TEST(TrainConfigTest, ShardedParametersNeedRecomputedLayersAndMatricesThatLearn) {
  const TinyRun run;
  EXPECT_NO_THROW(run.config("a", {"sharding=parameters", "activation_checkpointing=layers"}));
  testing::expect_error([&] { run.config("a", {"sharding=parameters"}); },
                        {"sharding: parameters", "set activation_checkpointing = layers"});
  testing::expect_error(
      [&] {
        run.config("a",
                   {"sharding=parameters", "activation_checkpointing=layers", "lora.rank=4", "initialize=pretrained"});
      },
      {"sharding: parameters", "lora.rank", "use states"});
}

TEST(TrainConfigTest, ChangedFieldsNamesWhatMayNotChange) {
  const TinyRun run;
  const auto before = run.config("a").to_json();
  EXPECT_THAT(changed_fields(before, run.config("b", {"steps=9", "threads=2", "checkpoint.keep_last=0"}).to_json()),
              IsEmpty());
  EXPECT_THAT(changed_fields(before, run.config("a", {"seed=6", "optimizer.beta2=0.9"}).to_json()),
              ElementsAre("seed: 5 before, 6 now", "optimizer.beta2: 0.95 before, 0.9 now"));
  EXPECT_THAT(changed_fields(before, run.config("a", {"data.eval=[]"}).to_json()), ::testing::SizeIs(2));
}

}  // namespace
}  // namespace qat
