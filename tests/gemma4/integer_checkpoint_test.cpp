// Checkpoints of mobile plans: scales of rows, edges and caches travel, and what is wrong with them is named.
#include "support/integer_checkpoint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "gemma4/model_folder.h"
#include "support/expect_error.h"

namespace qat {
namespace {

using testing::CheckpointScales;
using testing::expect_error;
namespace fs = std::filesystem;

const char* const kWeight = "layers.0.mlp.up_proj.weight";

class IntegerCheckpoint : public ::testing::Test {
 protected:
  void expect_refused(const std::function<void(CheckpointScales&)>& change,
                      std::initializer_list<std::string> parts) const {
    CheckpointScales scales = checkpoint_.good_scales();
    change(scales);
    const fs::path path = checkpoint_.write(scales);
    expect_error([&] { const ModelFolder folder(path); }, parts);
  }

  testing::IntegerCheckpoint checkpoint_{"mobile-w4"};
};

TEST_F(IntegerCheckpoint, ScalesReadBack) {
  const CheckpointScales scales = checkpoint_.good_scales();
  const ModelFolder checkpoint(checkpoint_.write(scales));
  for (const auto& [name, values] : scales.rows) {
    const auto read = checkpoint.row_scales(name);
    EXPECT_TRUE(std::equal(read.begin(), read.end(), values.begin(), values.end())) << name;
    EXPECT_TRUE(checkpoint.stored_scales(name).empty());
  }
  EXPECT_EQ(checkpoint.static_scales().linears, scales.edges.linears);
  EXPECT_EQ(checkpoint.static_scales().caches, scales.edges.caches);
  EXPECT_TRUE(checkpoint.row_scales("norm.weight").empty());
}

TEST_F(IntegerCheckpoint, AMissingFileOrTensorIsNamed) {
  const fs::path path = checkpoint_.write(checkpoint_.good_scales());
  fs::remove(path / "scales.safetensors");
  expect_error([&] { const ModelFolder folder(path); }, {"scales.safetensors", "embed_tokens.weight"});
  expect_refused([](CheckpointScales& scales) { scales.rows.erase(kWeight); }, {"scales.safetensors", kWeight});
  expect_refused([](CheckpointScales& scales) { scales.edges.linears.at(kWeight).output = 0; },
                 {"layers.0.mlp.up_proj.output_activation_scale"});
  expect_refused([](CheckpointScales& scales) { scales.edges.caches.erase(1); }, {"layers.1.self_attn.k_cache_scale"});
}

TEST_F(IntegerCheckpoint, RowScalesThatAreNoPositiveNumbersAreNamed) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 0.0F, -0.01F,
                          std::numeric_limits<float>::denorm_min()}) {
    SCOPED_TRACE(bad);
    expect_refused([&](CheckpointScales& scales) { scales.rows.at(kWeight)[7] = bad; },
                   {"scale 7", kWeight, "positive"});
  }
}

TEST_F(IntegerCheckpoint, AWrongCountOfScalesIsNamed) {
  expect_refused([](CheckpointScales& scales) { scales.rows.at(kWeight).pop_back(); }, {kWeight, "95", "96"});
}

TEST_F(IntegerCheckpoint, StaticScalesThatAreNoPositiveNumbersAreNamed) {
  const float bad_number = std::numeric_limits<float>::quiet_NaN();
  expect_refused([&](CheckpointScales& scales) { scales.edges.caches.at(0).key = 0; },
                 {"layers.0.self_attn.k_cache_scale", "positive"});
  expect_refused([&](CheckpointScales& scales) { scales.edges.caches.at(1).value = bad_number; },
                 {"layers.1.self_attn.v_cache_scale"});
  expect_refused(
      [&](CheckpointScales& scales) {
        scales.edges.linears.at(kWeight).input = std::numeric_limits<float>::infinity();
      },
      {"layers.0.mlp.up_proj.input_activation_scale", "positive"});
}

}  // namespace
}  // namespace qat
