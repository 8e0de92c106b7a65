#include "fake_quant/prepare.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include "gemma4/model_folder.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"
#include "support/tiny_model_folder.h"

namespace qat {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;

const KnownScales no_scales;

class Prepared : public ::testing::Test {
 protected:
  Prepared() : folder_path_((testing::write_tiny_model(temporary_ / "model"), temporary_ / "model")), folder_(folder_path_) {}

  at::Tensor hidden(Gemma4Model& model) {
    const at::NoGradGuard no_grad;
    return model.hidden_states(PackedTokens::single(at::arange(2, 34, at::kLong)));
  }

  TemporaryFolder temporary_;
  std::filesystem::path folder_path_;
  ModelFolder folder_;
};

TEST_F(Prepared, QuantizedForwardDiffersAndSwitchingOffRestoresTheMasters) {
  Gemma4Model model(folder_.config(), at::kFloat);
  load_weights(model, folder_.tensors());
  const at::Tensor plain = hidden(model);
  FakeQuantSet set = prepare(model, QuantPlan::load("q4_0").resolve(folder_.table()), no_scales);
  EXPECT_FALSE(hidden(model).equal(plain));
  set.enable(QuantizedParts::none());
  EXPECT_TRUE(hidden(model).equal(plain));
}

TEST_F(Prepared, AQuantizerThatNeverFiredFailsTheRun) {
  Gemma4Model model(folder_.config(), at::kFloat);
  load_weights(model, folder_.tensors());
  ResolvedPlan plan = QuantPlan::load("q4_0").resolve(folder_.table());
  plan.key_value_cache = Scheme::Q8_0;
  FakeQuantSet set = prepare(model, plan, no_scales);
  expect_error([&] { set.check_all_fired(); }, {"layers.0.mlp.up_proj.weight", "layers.1.self_attn.key_cache"});
  hidden(model);
  EXPECT_NO_THROW(set.check_all_fired());
  // Taking one quantizer out of the forward pass must be noticed.
  Gemma4Model other(folder_.config(), at::kFloat);
  load_weights(other, folder_.tensors());
  FakeQuantSet cut = prepare(other, plan, no_scales);
  other.projection("layers.2.mlp.up_proj.weight").weight_transform.reset();
  hidden(other);
  expect_error([&] { cut.check_all_fired(); }, {"layers.2.mlp.up_proj.weight"});
}

TEST_F(Prepared, ATiedTableIsOneMasterWithOneGrid) {
  Gemma4Model model(folder_.config(), at::kFloat);
  load_weights(model, folder_.tensors());
  FakeQuantSet set = prepare(model, QuantPlan::load("q4_0").resolve(folder_.table()), no_scales);
  const Projection& table = model.projection("embed_tokens.weight");
  EXPECT_EQ(&model.head(), &table);
  const at::Tensor rows = at::arange(100, 140, at::kLong);
  EXPECT_TRUE(table.effective_rows(rows).equal(table.effective_weight().index_select(0, rows)));
}

TEST_F(Prepared, MissingStoredScalesAreAnError) {
  Gemma4Model model(folder_.config(), at::kFloat);
  ResolvedPlan plan = QuantPlan::load("q4_0").resolve(folder_.table());
  plan.weights["layers.0.mlp.up_proj.weight"].scales = ScaleSource::Stored;
  expect_error([&] { prepare(model, plan, no_scales); }, {"layers.0.mlp.up_proj.weight", "stored scales"});
}

}  // namespace
}  // namespace qat
