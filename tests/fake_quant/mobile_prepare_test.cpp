// The mobile plan on a whole model: which slots share an edge, calibration, what switching on and off does.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "fake_quant/prepare.h"
#include "gemma4/model_folder.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"
#include "support/tiny_model_folder.h"

namespace qat {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;

class MobilePrepared : public ::testing::Test {
 protected:
  MobilePrepared()
      : folder_((testing::write_tiny_model(temporary_ / "model"), temporary_ / "model")),
        plan_(QuantPlan::load("mobile-w4").resolve(folder_.table())),
        model_(folder_.config(), at::kFloat) {
    load_weights(model_, folder_.tensors());
  }

  at::Tensor hidden() {
    const at::NoGradGuard no_grad;
    return model_.hidden_states(PackedTokens::single(at::arange(2, 34, at::kLong)));
  }

  // Twenty documents of one token, then one of twelve: the largest magnitudes lie on either side.
  std::vector<CalibratedEdge> calibrate(FakeQuantSet& set, const CalibrationRule& rule = {}) {
    const at::Tensor first_rows = at::arange(0, 21, at::kLong);
    set.start_calibration(&first_rows);
    hidden();
    return set.finish_calibration(rule, {});
  }

  const StaticEdge* find(const FakeQuantSet& set, const std::string& name) {
    const auto found = std::find_if(set.edges.begin(), set.edges.end(),
                                    [&](const StaticEdge& edge) { return edge.quantizer->name() == name; });
    return found == set.edges.end() ? nullptr : &*found;
  }

  TemporaryFolder temporary_;
  ModelFolder folder_;
  ResolvedPlan plan_;
  Gemma4Model model_;
};

TEST_F(MobilePrepared, LinearsThatReadOneActivationShareItsEdge) {
  const FakeQuantSet set = prepare(model_, plan_, {});
  const std::map<std::string, std::vector<std::string>> wanted{
      {"layers.0.self_attn.input", {"q_proj", "k_proj", "v_proj"}},
      {"layers.3.self_attn.input", {"q_proj"}},  // shares the keys of another layer
      {"layers.0.self_attn.o_proj.input", {"o_proj"}},
      {"layers.1.mlp.input", {"gate_proj", "up_proj"}},
      {"layers.1.mlp.down_proj.input", {"down_proj"}},
      {"layers.2.mlp.up_proj.output", {"up_proj"}}};
  for (const auto& [name, modules] : wanted) {
    const StaticEdge* edge = find(set, name);
    ASSERT_NE(edge, nullptr) << name;
    std::vector<std::string> weights;
    for (const std::string& weight : edge->weights) {
      weights.push_back(weight.substr(0, weight.rfind('.')));
      weights.back() = weights.back().substr(weights.back().rfind('.') + 1);
      const Projection& projection = model_.projection(weight);
      EXPECT_EQ(edge->kind == StaticEdge::Kind::Input ? projection.input_transform : projection.output_transform,
                edge->quantizer);
    }
    std::sort(weights.begin(), weights.end());
    std::vector<std::string> sorted = modules;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(weights, sorted) << name;
  }
  // The head and the tables have no static ends; layers 2 and 3 cache nothing of their own.
  EXPECT_EQ(model_.head().input_transform, nullptr);
  EXPECT_NE(find(set, "layers.1.self_attn.key_cache"), nullptr);
  EXPECT_EQ(find(set, "layers.2.self_attn.key_cache"), nullptr);
}

TEST_F(MobilePrepared, CalibrationGivesEveryEdgeAScale) {
  FakeQuantSet set = prepare(model_, plan_, {});
  EXPECT_TRUE(set.needs_calibration());
  const auto edges = calibrate(set, {CalibrationRule::Kind::Maximum, 0});
  EXPECT_FALSE(set.needs_calibration());
  ASSERT_EQ(edges.size(), set.edges.size());
  for (size_t i = 0; i < edges.size(); ++i) {
    EXPECT_EQ(edges[i].name, set.edges[i].quantizer->name());
    EXPECT_GT(edges[i].scale, 0.0F) << edges[i].name;
    if (set.edges[i].kind == StaticEdge::Kind::ValueCache) {
      EXPECT_FLOAT_EQ(edges[i].scale, 6.0F / 127);  // of the format, since values have unit RMS
    } else {
      EXPECT_FLOAT_EQ(edges[i].scale, std::max(edges[i].largest, edges[i].largest_at_first) / 127) << edges[i].name;
    }
  }
  hidden();
  EXPECT_NO_THROW(set.check_all_fired());
  const StaticScales scales = set.static_scales();
  const auto& linears = scales.linears;
  EXPECT_EQ(linears.at("layers.0.self_attn.q_proj.weight").input, linears.at("layers.0.self_attn.v_proj.weight").input);
  EXPECT_NE(linears.at("layers.0.mlp.gate_proj.weight").output, linears.at("layers.0.mlp.up_proj.weight").output);
  EXPECT_EQ(scales.caches.size(), 2U);
}

// First tokens spike; a percentile would be theirs alone.
TEST_F(MobilePrepared, PercentilesLeaveFirstTokensOut) {
  FakeQuantSet set = prepare(model_, plan_, {});
  const auto edges = calibrate(set, {CalibrationRule::Kind::Percentile, 100});
  int spikes = 0;
  for (const CalibratedEdge& edge : edges) {
    if (edge.name.ends_with("value_cache")) continue;
    EXPECT_NEAR(edge.scale, edge.largest / 127, edge.largest / 127 / 64) << edge.name;
    spikes += edge.largest_at_first > 1.1F * edge.largest ? 1 : 0;
  }
  EXPECT_GT(spikes, 0);
}

TEST_F(MobilePrepared, AnEdgeWithoutDataFailsCalibrationAndIsNamed) {
  FakeQuantSet set = prepare(model_, plan_, {});
  model_.projection("layers.2.mlp.down_proj.weight").input_transform.reset();
  expect_error([&] { calibrate(set); }, {"layers.2.mlp.down_proj.input", "no data"});
}

TEST_F(MobilePrepared, AnUncalibratedModelDoesNotRun) {
  const FakeQuantSet set = prepare(model_, plan_, {});
  expect_error([&] { hidden(); }, {"never calibrated"});
}

TEST_F(MobilePrepared, PartsSwitchOnAndOffOnTheirOwn) {
  const at::Tensor plain = hidden();
  FakeQuantSet set = prepare(model_, plan_, {});
  calibrate(set);
  const at::Tensor all = hidden();
  set.enable({true, false, false});
  const at::Tensor weights_only = hidden();
  set.enable({true, true, false});
  const at::Tensor without_caches = hidden();
  EXPECT_FALSE(weights_only.equal(plain));
  EXPECT_FALSE(without_caches.equal(weights_only));
  EXPECT_FALSE(all.equal(without_caches));
  set.enable(QuantizedParts::none());
  EXPECT_TRUE(hidden().equal(plain));
}

TEST_F(MobilePrepared, CalibrationLooksAtUnquantizedActivations) {
  FakeQuantSet set = prepare(model_, plan_, {});
  set.enable({true, false, false});
  const at::Tensor weights_only = hidden();
  set.enable({});
  const at::Tensor first_rows = at::zeros({1}, at::kLong);
  set.start_calibration(&first_rows);
  EXPECT_TRUE(hidden().equal(weights_only));
}

TEST_F(MobilePrepared, GivenScalesAreKept) {
  StaticScales known;
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
    known.linears["layers.0.self_attn." + std::string(name) + ".weight"].input = 0.125F;
  }
  known.caches[1] = {0.25F, 0.5F};
  KnownScales scales;
  scales.edges = &known;
  FakeQuantSet set = prepare(model_, plan_, scales);
  calibrate(set);
  EXPECT_EQ(set.static_scales().linears.at("layers.0.self_attn.k_proj.weight").input, 0.125F);
  EXPECT_EQ(set.static_scales().caches.at(1), (CacheScales{0.25F, 0.5F}));

  known.linears["layers.0.self_attn.v_proj.weight"].input = 0.126F;
  Gemma4Model other(folder_.config(), at::kFloat);
  load_weights(other, folder_.tensors());
  expect_error([&] { prepare(other, plan_, scales); }, {"layers.0.self_attn", "same input"});
}

TEST_F(MobilePrepared, RowScalesAreFoundAgainUnlessTheyWereGiven) {
  const std::string given = "layers.0.mlp.up_proj.weight";
  const std::vector<float> known(static_cast<size_t>(folder_.table().find(given)->row_scales()), 0.375F);
  KnownScales scales;
  scales.rows = [&](const std::string& weight) {
    return weight == given ? std::span<const float>(known) : std::span<const float>();
  };
  FakeQuantSet set = prepare(model_, plan_, scales);
  const std::string found = "layers.0.mlp.gate_proj.weight";
  const at::Tensor before = set.row_scales().at(found).clone();
  const at::NoGradGuard no_grad;
  model_.projection(found).weight.mul_(2);
  model_.projection(given).weight.mul_(2);
  set.find_weight_scales(RowScaleMethod::Searched);
  EXPECT_TRUE(set.row_scales().at(found).allclose(before.mul(2)));
  EXPECT_EQ(set.row_scales().at(given).max().item<float>(), 0.375F);
}

}  // namespace
}  // namespace qat
