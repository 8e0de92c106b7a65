// Runs whose Q4_0 scales are searched or learned, on a tiny model: what is stored is what was used, learning, freezing,
// resuming, going on.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/sha256.h"
#include "gemma4/model_folder.h"
#include "gemma4/witness.h"
#include "quant/grid.h"
#include "quant/scalar_codec.h"
#include "support/expect_error.h"
#include "trainers/run_folder.h"
#include "trainers/tiny_run.h"

namespace qat {
namespace {

namespace fs = std::filesystem;
using testing::bytes_of;
using testing::metrics_of;
using testing::TinyRun;
using testing::train;

const char* const kWeight = "layers.1.mlp.up_proj.weight";

std::vector<Float16> scales_of(const fs::path& folder, const char* weight = kWeight) {
  const ModelFolder checkpoint(folder);
  const auto scales = checkpoint.stored_scales(weight);
  return {scales.begin(), scales.end()};
}

std::vector<float> master_of(const ModelFolder& checkpoint, const WeightSpec& weight) {
  const auto* values = reinterpret_cast<const BFloat16*>(checkpoint.masters().of(weight).bytes.data());
  std::vector<float> result;
  for (int64_t i = 0; i < weight.elements(); ++i) result.push_back(to_float(values[i]));
  return result;
}

// Codes and scales of the forward pass, recorded in the witness, against the scalar rule applied to what the checkpoint
// stores.
void expect_witness_of_stored_scales(const fs::path& folder) {
  const ModelFolder checkpoint(folder);
  const Witness witness = Witness::load(folder / "witness.safetensors");
  int64_t compared = 0;
  for (const WeightSpec& weight : checkpoint.table().weights()) {
    if (checkpoint.plan()->of(weight.name).scheme != Scheme::Q4_0) continue;
    const auto scales = checkpoint.stored_scales(weight.name);
    const auto master = master_of(checkpoint, weight);
    ASSERT_EQ(scales.size() * 32, master.size()) << weight.name;
    Sha256 codes, scale_bytes;
    scale_bytes.update(std::as_bytes(scales));
    for (size_t i = 0; i < master.size(); ++i) {
      const float inverse = grid::inverse_scale(to_float(scales[i / 32]));
      const auto code = static_cast<std::byte>(grid::q4_0_code(master[i], inverse) - 8);
      codes.update({&code, 1});
    }
    const WeightDigest& digest = witness.digests.find(weight.name)->second;
    EXPECT_EQ(digest.codes, codes.finish()) << weight.name;
    EXPECT_EQ(digest.scales, scale_bytes.finish()) << weight.name;
    ++compared;
  }
  EXPECT_GT(compared, 10);
}

class BlockScalesRun : public ::testing::TestWithParam<const char*> {};

TEST_P(BlockScalesRun, StoresTheScalesThatItUsed) {
  const TinyRun run;
  for (const char* dtype : {"dtype=float32", "dtype=bfloat16"}) {
    ASSERT_EQ(train(run.config(dtype, {std::string("quantization.block_scales=") + GetParam(), dtype,
                                       "optimizer.learning_rate=1e-2"})),
              0);
    expect_witness_of_stored_scales(run.folder(dtype) / "checkpoint");
    expect_witness_of_stored_scales(run.folder(dtype) / "step-3");
  }
}

// With final_ratio 1 the rate of a step does not depend on the number of steps, so a run of 3 is the first half of one
// of 6.
TEST_P(BlockScalesRun, SixStepsEqualThreeAndThree) {
  const TinyRun run;
  for (const char* kind : {"adamw", "adamw8bit"}) {
    std::vector<std::string> overrides{std::string("quantization.block_scales=") + GetParam(),
                                       std::string("optimizer.kind=") + kind,
                                       "quantization.start_step=1",
                                       "quantization.scale_freeze_share=0",
                                       "optimizer.final_ratio=1",
                                       "eval.every_steps=3",
                                       "steps=6"};
    const std::string straight = std::string("straight-") + kind, halves = std::string("halves-") + kind;
    ASSERT_EQ(train(run.config(straight, overrides)), 0);
    overrides.back() = "steps=3";
    ASSERT_EQ(train(run.config(halves, overrides)), 0);
    overrides.back() = "steps=6";
    ASSERT_EQ(train(run.config(halves, overrides), true), 0);
    for (const char* file : {"checkpoint/model.safetensors", "checkpoint/scales.safetensors",
                             "checkpoint/witness.safetensors", "state.h5"}) {
      EXPECT_TRUE(bytes_of(run.folder(straight) / file) == bytes_of(run.folder(halves) / file)) << kind << " " << file;
    }
    EXPECT_EQ(metrics_of(run.folder(straight)), metrics_of(run.folder(halves)));
  }
}

TEST_P(BlockScalesRun, LoraStoresTheScalesOfTheMergedWeights) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("base", {"plan=", "kv_cache=none", "steps=2"})), 0);
  const std::string base = (run.folder("base") / "checkpoint").string();
  ASSERT_EQ(train(run.config("lora", {std::string("quantization.block_scales=") + GetParam(), "model=" + base,
                                      "initialize=pretrained", "lora.rank=4", "optimizer.learning_rate=3e-2"})),
            0);
  expect_witness_of_stored_scales(run.folder("lora") / "checkpoint");
}

INSTANTIATE_TEST_SUITE_P(Methods, BlockScalesRun, ::testing::Values("search", "learned"));

TEST(BlockScales, SearchedOnesAreThoseOfTheMastersAsTheyAre) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("a", {"quantization.block_scales=search", "optimizer.learning_rate=1e-2"})), 0);
  EXPECT_NE(scales_of(run.folder("a") / "step-3"), scales_of(run.folder("a") / "step-6"));
  for (const char* step : {"step-3", "step-6"}) {
    const ModelFolder checkpoint(run.folder("a") / step);
    const auto master = master_of(checkpoint, *checkpoint.table().find(kWeight));
    const auto scales = checkpoint.stored_scales(kWeight);
    for (size_t block = 0; block < scales.size(); ++block) {
      EXPECT_EQ(scales[block], scalar::q4_0_searched_scale(scalar::Block(master.data() + 32 * block, 32)));
    }
  }
}

TEST(BlockScales, LearnFromTheSearchedStartAndStayInTheLastPart) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("a", {"quantization.block_scales=learned", "quantization.scale_freeze_share=0.5",
                                   "quantization.scale_learning_rate=0.05", "checkpoint.every_steps=1",
                                   "checkpoint.keep_last=10", "freeze_tables=yes"})),
            0);
  const fs::path out = run.folder("a");
  const auto at_step = [&](int step) { return out / ("step-" + std::to_string(step)); };
  EXPECT_NE(scales_of(at_step(1)), scales_of(at_step(2)));
  EXPECT_NE(scales_of(at_step(2)), scales_of(at_step(3)));
  for (const int step : {4, 5, 6}) {
    EXPECT_EQ(scales_of(at_step(step)), scales_of(at_step(3)));
    EXPECT_FALSE(bytes_of(at_step(step) / "model.safetensors") == bytes_of(at_step(step - 1) / "model.safetensors"));
  }
  // Scales of a frozen weight stay what the search found.
  const char* const frozen = "embed_tokens.weight";
  const ModelFolder checkpoint(at_step(6));
  const auto master = master_of(checkpoint, *checkpoint.table().find(frozen));
  EXPECT_EQ(scales_of(at_step(6), frozen)[7], scalar::q4_0_searched_scale(scalar::Block(master.data() + 32 * 7, 32)));
}

TEST(BlockScales, OfACheckpointAreTheStartOfTheNextRunOrAreSearchedAgain) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("a", {"quantization.block_scales=learned", "quantization.scale_learning_rate=0.05",
                                   "quantization.scale_freeze_share=0"})),
            0);
  const fs::path base = run.folder("a") / "checkpoint";
  const auto next = [&](const std::string& name, std::vector<std::string> overrides) {
    overrides.insert(overrides.end(), {"model=" + base.string(), "initialize=pretrained", "quantization.start_step=1"});
    EXPECT_EQ(train(run.config(name, overrides)), 0);
    return scales_of(run.folder(name) / "checkpoint");
  };
  EXPECT_EQ(next("kept", {"quantization.block_scales=learned", "quantization.learn_scales=false"}), scales_of(base));
  EXPECT_EQ(next("plan", {"plan=model"}), scales_of(base));
  EXPECT_NE(next("searched", {"quantization.block_scales=search"}), scales_of(base));
  EXPECT_TRUE(next("rule", {}).empty());
}

TEST(BlockScales, NeedAPlan) {
  const TinyRun run;
  testing::expect_error(
      [&] {
        run.config("a", {"plan=", "kv_cache=none", "quantization.block_scales=search"});
      },
      {"quantization.block_scales: needs a plan"});
}

}  // namespace
}  // namespace qat
