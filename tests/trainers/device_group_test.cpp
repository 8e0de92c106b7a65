// Groups of processes on a device that the host cannot read (support/far_device.h), where gradients, parameters,
// moments and what a run begins with pass through the CPU's memory: against the same groups on the CPU.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/json.h"
#include "core/output_file.h"
#include "support/far_device.h"
#include "trainers/group_run.h"
#include "trainers/tiny_run.h"

namespace qat {
namespace {

namespace fs = std::filesystem;
using testing::bytes_of;
using testing::metrics_of;

// The programs that the processes run.
constexpr const char* kNear = QAT_TRAIN_ONCE;
constexpr const char* kFar = QAT_TRAIN_ONCE_FAR;

class DeviceGroupTest : public ::testing::TestWithParam<std::vector<std::string>> {
 protected:
  DeviceGroupTest() {
    testing::far_device();
    nlohmann::json model = load_json(run_.model() / "config.json");
    model["sliding_window"] = 64;  // wide, as in device_run_test.cpp
    write_file(run_.model() / "config.json", model.dump());
  }

  void train(const char* program, int size, const std::string& out, const std::vector<std::string>& overrides,
             bool resume = false) const {
    const std::string config = run_.config_file(out, overrides).string();
    testing::GroupRun group(size, [&](int) {
      return resume ? std::vector<std::string>{program, config, "--resume"} : std::vector<std::string>{program, config};
    });
    EXPECT_EQ(group.wait(), std::vector<int>(static_cast<size_t>(size), 0)) << group.all_told();
  }

  testing::TinyRun run_;
};

TEST_P(DeviceGroupTest, GivesTheBytesOfTheCpu) {
  std::vector<std::string> overrides{"gradient_accumulation=6", "steps=4", "checkpoint.every_steps=2",
                                     "optimizer.final_ratio=1"};
  for (std::string setting : GetParam()) {
    if (setting == "model=BASE") {
      train(kNear, 1, "base", {"plan=", "kv_cache=none", "steps=2"});
      setting = "model=" + (run_.folder("base") / "checkpoint").string();
    }
    overrides.push_back(setting);
  }
  train(kNear, 2, "near", overrides);
  overrides.push_back(std::string("device=") + testing::kFarDevice);
  // In two halves, so that moments come back from the file, too.
  std::vector<std::string> half = overrides;
  half.push_back("steps=2");
  train(kFar, 2, "far", half);
  train(kFar, 2, "far", overrides, /*resume=*/true);
  EXPECT_TRUE(metrics_of(run_.folder("far")) == metrics_of(run_.folder("near")));
  for (const char* file : {"checkpoint/model.safetensors", "checkpoint/witness.safetensors"}) {
    EXPECT_TRUE(bytes_of(run_.folder("far") / file) == bytes_of(run_.folder("near") / file)) << file;
  }
}

INSTANTIATE_TEST_SUITE_P(Recipes, DeviceGroupTest,
                         ::testing::Values(std::vector<std::string>{"sharding=none"},
                                           std::vector<std::string>{"sharding=states", "gradient_accumulation=2"},
                                           std::vector<std::string>{"sharding=states", "plan=mobile-w4",
                                                                    "kv_cache=plan", "quantization.learn_scales=false"},
                                           std::vector<std::string>{"optimizer.masters=bfloat16", "eval.metric=kl",
                                                                    "initialize=pretrained", "model=BASE"}));

}  // namespace
}  // namespace qat
