// What a group of processes does when nothing goes wrong: sums, shared training, resume.
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <numeric>
#include <thread>

#include "core/json.h"
#include "core/output_file.h"
#include "io/hdf5.h"
#include "support/tiny_model_folder.h"
#include "trainers/group_run.h"
#include "trainers/run_folder.h"
#include "trainers/tiny_run.h"
#include "trainers/train_state.h"
#include "trainers/weight_shares.h"

namespace qat {
namespace {

namespace fs = std::filesystem;
using testing::bytes_of;
using testing::GroupRun;
using testing::metrics_of;
using testing::step_losses;
using testing::TinyRun;

// Six passes a step, so that one, two or three processes can share them.
const std::vector<std::string> kShared{"gradient_accumulation=6", "steps=4", "checkpoint.every_steps=2"};

std::vector<std::string> with(std::vector<std::string> overrides, const std::vector<std::string>& more) {
  overrides.insert(overrides.end(), more.begin(), more.end());
  return overrides;
}

void train_in_group(int size, const fs::path& config, bool resume = false, const char* program = QAT_TRAIN_ONCE) {
  GroupRun group(size, [&](int) {
    std::vector<std::string> words{program, config.string()};
    if (resume) words.emplace_back("--resume");
    return words;
  });
  EXPECT_EQ(group.wait(), std::vector<int>(static_cast<size_t>(size), 0)) << group.all_told();
}

TEST(WeightSharesTest, EveryElementTravelsOnceAndLoadsAreEven) {
  std::vector<TrainedWeight> weights;
  for (const int64_t elements : {3, 9000000, 70000, 5, 9000000, 12, 65536, 1}) {
    weights.push_back({"", at::empty({elements}, elements % 2 == 0 ? at::kFloat : at::kBFloat16)});
  }
  for (const int64_t processes : {1, 2, 3, 20}) {
    const WeightShares shares(weights, processes);
    std::vector<int64_t> seen(weights.size()), load(static_cast<size_t>(processes));
    for (const WeightPiece& piece : shares.pieces()) {
      int64_t whole = 0;
      for (const size_t weight : piece.weights) {
        EXPECT_EQ(shares.owner(weight), piece.owner);
        EXPECT_EQ(weights[weight].parameter.scalar_type(), weights[piece.weights.front()].parameter.scalar_type());
        const int64_t elements = piece.weights.size() == 1 ? piece.count : weights[weight].parameter.numel();
        if (piece.weights.size() == 1) {
          EXPECT_EQ(piece.first, seen[weight]);
        }
        seen[weight] += elements;
        whole += elements;
      }
      EXPECT_EQ(whole, piece.count);
      load[static_cast<size_t>(piece.owner)] += piece.count;
    }
    for (size_t i = 0; i < weights.size(); ++i) EXPECT_EQ(seen[i], weights[i].parameter.numel());
    if (processes == 2) {
      EXPECT_LT(std::abs(load[0] - load[1]), 70000);
    }
  }
}

class ExchangeTest : public ::testing::TestWithParam<const char*> {};

TEST_P(ExchangeTest, SumsHaveTheBitsOfAdditionInTheOrderOfRanks) {
  for (const int size : {1, 2, 3}) {
    if (size == 1 && std::string(GetParam()).find("owners") != std::string::npos) continue;
    GroupRun group(size, [](int) { return std::vector<std::string>{QAT_EXCHANGE_ONCE, GetParam()}; });
    EXPECT_EQ(group.wait(), std::vector<int>(static_cast<size_t>(size), 0)) << group.all_told();
  }
}

TEST_P(ExchangeTest, SumsOfACollectiveAreEqualOnAllRanks) {
  for (const int size : {2, 3}) {
    GroupRun group(size, [](int) { return std::vector<std::string>{QAT_EXCHANGE_ONCE_COLLECTIVE, GetParam()}; });
    EXPECT_EQ(group.wait(), std::vector<int>(static_cast<size_t>(size), 0)) << group.all_told();
  }
}

INSTANTIATE_TEST_SUITE_P(All, ExchangeTest,
                         ::testing::Values("fp32", "bf16", "fp32 two", "bf16 two", "fp32 owners", "bf16 owners two"));

// After one step from zero the first moment is a tenth of the gradient.
TEST(DistributedTest, ProcessesComputeTheGradientsOfOne) {
  const TinyRun run;
  const auto overrides = with(kShared, {"steps=1", "optimizer.clip_norm=0", "optimizer.warmup_steps=1"});
  for (const int size : {1, 2, 3}) train_in_group(size, run.config_file(std::to_string(size), overrides));
  const Hdf5Reader one(run.folder("1") / "state.h5");
  for (const char* several : {"2", "3"}) {
    const Hdf5Reader shared(run.folder(several) / "state.h5");
    for (const std::string& name : one.names_in("first_moments")) {
      const std::string array = "first_moments/" + name;
      std::vector<float> wanted(one.elements(array)), found(wanted.size());
      one.read(array, wanted);
      shared.read(array, found);
      float largest = 0, difference = 0;
      for (size_t i = 0; i < wanted.size(); ++i) {
        largest = std::max(largest, std::abs(wanted[i]));
        difference = std::max(difference, std::abs(found[i] - wanted[i]));
      }
      EXPECT_LE(difference, 1e-5F * largest) << name;
    }
  }
}

// Changes the tiny model, whose last layers share keys and values, and gives it weights.
void make_plain(const TinyRun& run, nlohmann::json changes) {
  nlohmann::json model = load_json(run.model() / "config.json");
  changes.update({{"num_kv_shared_layers", 0}, {"hidden_size_per_layer_input", 0}, {"use_double_wide_mlp", false}});
  model.update(changes);
  write_file(run.model() / "config.json", model.dump());
  testing::write_random_weights(run.model());
}
void make_dense(const TinyRun& run) { make_plain(run, nlohmann::json::object()); }
void make_experts(const TinyRun& run) {
  make_plain(run,
             {{"enable_moe_block", true}, {"num_experts", 4}, {"top_k_experts", 2}, {"moe_intermediate_size", 32}});
}

TEST(DistributedTest, ACollectiveTrainsLikeTheHost) {
  const TinyRun run;
  for (const char* sharding : {"sharding=none", "sharding=states"}) {
    SCOPED_TRACE(sharding);
    const auto overrides = with(kShared, {sharding});
    train_in_group(3, run.config_file("host", overrides));
    train_in_group(3, run.config_file("collective", overrides), /*resume=*/false, QAT_TRAIN_ONCE_COLLECTIVE);
    const auto wanted = step_losses(run.folder("host")), found = step_losses(run.folder("collective"));
    ASSERT_EQ(found.size(), wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(found[i], wanted[i], 1e-5 * wanted[i]) << "step " << i + 1;
    for (const char* folder : {"host", "collective"}) fs::remove_all(run.folder(folder));
  }
}

struct ShardingCase {
  const char* name;
  int size;
  std::vector<std::string> overrides;
  void (*change_model)(const TinyRun&) = nullptr;
};

class ShardingTest : public ::testing::TestWithParam<ShardingCase> {};

TEST_P(ShardingTest, ChangesNoBit) {
  const TinyRun run;
  if (GetParam().change_model != nullptr) GetParam().change_model(run);
  const auto overrides = with(kShared, GetParam().overrides);
  train_in_group(GetParam().size, run.config_file("none", overrides));
  for (const char* sharding : {"states", "parameters"}) {
    SCOPED_TRACE(sharding);
    train_in_group(GetParam().size, run.config_file(sharding, with(overrides, {std::string("sharding=") + sharding,
                                                                               "activation_checkpointing=layers"})));
    EXPECT_EQ(metrics_of(run.folder("none")), metrics_of(run.folder(sharding)));
    for (const char* file :
         {"checkpoint/model.safetensors", "checkpoint/witness.safetensors", "best/model.safetensors"}) {
      EXPECT_TRUE(bytes_of(run.folder("none") / file) == bytes_of(run.folder(sharding) / file)) << file;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, ShardingTest,
    ::testing::Values(
        ShardingCase{"adamw", 3, {}},
        ShardingCase{"coded", 2, {"optimizer.kind=adamw8bit", "dtype=bfloat16", "quantization.keep=codes"}},
        ShardingCase{"factored",
                     2,
                     {"optimizer.kind=adafactor", "optimizer.masters=bfloat16", "dtype=bfloat16",
                      "quantization.keep=nothing", "quantization.start_step=2"}},
        ShardingCase{"experts", 3, {"initialize=pretrained", "quantization.keep=codes"}, make_experts},
        ShardingCase{"kl",
                     2,
                     {"initialize=pretrained", "eval.metric=kl", "dtype=bfloat16", "freeze_tables=yes",
                      "quantization.keep=codes", "quantization.block_scales=search"},
                     make_dense},
        ShardingCase{
            "plain", 2, {"initialize=pretrained", "plan=", "kv_cache=none", "freeze=[\"mlp_down\"]"}, make_dense},
        ShardingCase{"block_scales", 3, {"quantization.block_scales=learned", "dtype=bfloat16"}},
        ShardingCase{"scales", 2, {"plan=mobile-w4", "kv_cache=plan", "quantization.calibration.rows=4"}}),
    [](const auto& tested) { return tested.param.name; });

TEST(DistributedTest, LoraAdaptersAreShardedToo) {
  const TinyRun run;
  train_in_group(1, run.config_file("base", {"plan=", "kv_cache=none", "steps=2"}));
  const auto overrides = with(kShared, {"model=" + (run.folder("base") / "checkpoint").string(),
                                        "initialize=pretrained", "lora.rank=4", "lora.dropout=0.25"});
  train_in_group(2, run.config_file("none", overrides));
  train_in_group(2, run.config_file("states", with(overrides, {"sharding=states"})));
  EXPECT_EQ(metrics_of(run.folder("none")), metrics_of(run.folder("states")));
  for (const char* file : {"checkpoint/model.safetensors", "adapter/adapter_model.safetensors"}) {
    EXPECT_TRUE(bytes_of(run.folder("none") / file) == bytes_of(run.folder("states") / file)) << file;
  }
}

// That the program below found every process with its part of the parameters, and the same gradients.
TEST(DistributedTest, ShardedParametersAreHeldByTheirOwnersAlone) {
  const TinyRun run;
  make_plain(run, {{"hidden_size", 256},
                   {"intermediate_size", 768},
                   {"num_hidden_layers", 9},
                   {"layer_types", std::vector<std::string>(9, "full_attention")}});
  for (const char* keep : {"codes", "values"}) {
    const fs::path config =
        run.config_file("a", {"initialize=pretrained", "dtype=bfloat16", "freeze_tables=yes", "sharding=parameters",
                              "activation_checkpointing=layers", std::string("quantization.keep=") + keep});
    for (const int size : {2, 3}) {
      GroupRun group(size, [&](int) { return std::vector<std::string>{QAT_SHARD_ONCE, config.string()}; });
      EXPECT_EQ(group.wait(), std::vector<int>(static_cast<size_t>(size), 0)) << group.all_told();
    }
  }
}

// Ctrl-C at one process stops all at the same step.
TEST(DistributedTest, AnInterruptedGroupResumesToTheSameBytes) {
  for (const char* sharding : {"sharding=none", "sharding=states", "sharding=parameters"}) {
    const TinyRun run;
    const auto overrides = with(kShared, {"steps=30", "checkpoint.every_steps=29", "quantization.keep=codes",
                                          "activation_checkpointing=layers", sharding});
    train_in_group(2, run.config_file("straight", overrides));
    const fs::path config = run.config_file("stopped", overrides);
    GroupRun group(2, [&](int) { return std::vector<std::string>{QAT_TRAIN_ONCE, config.string()}; });
    while (!fs::exists(run.folder("stopped") / "metrics.jsonl")) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    group.signal(1, SIGINT);
    EXPECT_EQ(group.wait(), (std::vector<int>{130, 130})) << group.all_told();
    const TrainState state = load_state(run.folder("stopped") / "state.h5");
    EXPECT_LT(state.step, 30);
    EXPECT_EQ(checkpoint_step(run.folder("stopped") / "checkpoint"), state.step);
    train_in_group(2, config, /*resume=*/true);
    for (const char* file : {"checkpoint/model.safetensors", "checkpoint/witness.safetensors", "state.h5"}) {
      EXPECT_TRUE(bytes_of(run.folder("straight") / file) == bytes_of(run.folder("stopped") / file)) << file;
    }
    EXPECT_EQ(metrics_of(run.folder("straight")), metrics_of(run.folder("stopped")));
  }
}

TEST(DistributedTest, AnotherNumberOfProcessesGoesOnFromTheSameRow) {
  const TinyRun run;
  const std::vector<std::string> flat{"gradient_accumulation=6", "optimizer.final_ratio=1"};
  train_in_group(1, run.config_file("one", with(flat, {"steps=9"})));
  train_in_group(3, run.config_file("several", with(flat, {"steps=2", "sharding=states"})));
  train_in_group(1, run.config_file("several", with(flat, {"steps=3"})), /*resume=*/true);
  train_in_group(2, run.config_file("several", with(flat, {"steps=5", "sharding=states"})), /*resume=*/true);
  train_in_group(2, run.config_file("several", with(flat, {"steps=6", "sharding=none"})), /*resume=*/true);
  const std::vector<std::string> sharded{"sharding=parameters", "activation_checkpointing=layers"};
  train_in_group(3, run.config_file("several", with(with(flat, {"steps=7"}), sharded)), /*resume=*/true);
  train_in_group(2, run.config_file("several", with(with(flat, {"steps=8"}), sharded)), /*resume=*/true);
  train_in_group(1, run.config_file("several", with(with(flat, {"steps=9"}), sharded)), /*resume=*/true);
  const auto wanted = step_losses(run.folder("one")), found = step_losses(run.folder("several"));
  ASSERT_EQ(found.size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(found[i], wanted[i], 1e-3 * wanted[i]) << "step " << i + 1;
  const TrainState one = load_state(run.folder("one") / "state.h5");
  const TrainState several = load_state(run.folder("several") / "state.h5");
  EXPECT_EQ(one.data, several.data);
  EXPECT_NEAR(one.best_metric, several.best_metric, 1e-3 * one.best_metric);
}

}  // namespace
}  // namespace qat
