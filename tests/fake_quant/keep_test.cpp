// What quantizers keep between uses: the same bits for values, codes and nothing, and as few bytes as promised.
#include "fake_quant/keep.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fake_quant/frozen_values.h"
#include "fake_quant/prepare.h"
#include "model/chunked_head.h"
#include "support/counting_allocator.h"
#include "support/temporary_folder.h"
#include "support/tiny_model_folder.h"

namespace qat {
namespace {

constexpr Keep kAll[] = {Keep::Values, Keep::Codes, Keep::Nothing};

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.reshape({-1}).view(at::kByte).equal(b.reshape({-1}).view(at::kByte));
}

std::string name_of(Keep keep) { return keep == Keep::Values ? "values" : keep == Keep::Codes ? "codes" : "nothing"; }

class KeepTest : public ::testing::TestWithParam<at::ScalarType> {};

TEST_P(KeepTest, BlocksGiveTheSameValuesAndSeeANewMasterWhenItIsAnnounced) {
  for (const Scheme id : {Scheme::Q4_0, Scheme::Q8_0, Scheme::Q6_K}) {
    // More than a thread takes at a time, and an odd number of blocks.
    at::Tensor master = at::randn({257, 512}, GetParam());
    std::vector<Float16> scales;
    if (id == Scheme::Q4_0) scales.resize(static_cast<size_t>(master.numel() / 32), to_float16(-0.3F));
    WeightFakeQuantizer wanted("w", id, scales);
    const at::Tensor before = wanted.apply(master).clone();
    for (const Keep keep : kAll) {
      SCOPED_TRACE(std::string(scheme(id).name) + " " + name_of(keep));
      WeightFakeQuantizer quantizer("w", id, scales);
      quantizer.set_keep(keep);
      for (int use = 0; use < 2; ++use) EXPECT_TRUE(same_bits(quantizer.apply(master), before));
      const at::Tensor moved = master * 1.1;
      EXPECT_EQ(same_bits(quantizer.apply(moved), before), keep != Keep::Nothing);
      quantizer.changed();
      EXPECT_FALSE(same_bits(quantizer.apply(moved), before));
    }
  }
}

WeightSpec matrix(int64_t rows, int64_t columns) {
  return {.name = "layers.0.mlp.up_proj.weight",
          .gguf_name = "",
          .shape = {rows, columns},
          .role = WeightRole::MlpUp,
          .layer = 0,
          .scale_width = columns};
}

TEST_P(KeepTest, RowsGiveTheSameValuesAndGradients) {
  for (const Scheme id : {Scheme::Int2, Scheme::Int4, Scheme::Int8}) {
    const at::Tensor start = at::randn({301, 132}, GetParam());
    const at::Tensor incoming = at::randn({301, 132}, GetParam());
    std::map<Keep, std::vector<at::Tensor>> results;
    for (const Keep keep : kAll) {
      at::Tensor master = start.clone().set_requires_grad(true);
      RowWeightFakeQuantizer quantizer(matrix(301, 132), id, false);
      quantizer.find_scales(master, RowScaleMethod::Searched);
      at::Tensor log_change = quantizer.scale().log_change();
      log_change.set_requires_grad(true);
      quantizer.set_keep(keep);
      quantizer.apply(master);
      const at::Tensor value = quantizer.apply(master);
      (value * incoming).sum().backward();
      results[keep] = {value.detach(), master.grad(), log_change.grad()};
      quantizer.changed();
    }
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_TRUE(same_bits(results[Keep::Codes][i], results[Keep::Values][i])) << scheme(id).name << " " << i;
      EXPECT_TRUE(same_bits(results[Keep::Nothing][i], results[Keep::Values][i])) << scheme(id).name << " " << i;
    }
  }
}

TEST_P(KeepTest, HoldsTheBytesOfValuesCodesOrNothing) {
  at::set_num_threads(1);
  const at::Tensor master = at::randn({64, 512}, GetParam());
  const int64_t values = master.numel();
  const int64_t value_bytes = GetParam() == at::kFloat ? 4 : 2;
  for (const Keep keep : kAll) {
    SCOPED_TRACE(name_of(keep));
    WeightFakeQuantizer blocks("w", Scheme::Q4_0, {});
    RowWeightFakeQuantizer rows(matrix(64, 512), Scheme::Int4, false);
    rows.find_scales(master, RowScaleMethod::AbsoluteMax);
    rows.scale().values();
    blocks.set_keep(keep);
    rows.set_keep(keep);
    const auto held_by = [&](auto& quantizer) {
      const testing::CountingAllocator counter;
      quantizer.apply(master);
      return counter.bytes();
    };
    const int64_t of_blocks = held_by(blocks), of_rows = held_by(rows);
    EXPECT_EQ(of_blocks, keep == Keep::Values ? value_bytes * values : keep == Keep::Codes ? values / 32 * 18 : 0);
    EXPECT_EQ(of_rows, keep == Keep::Values ? value_bytes * values : keep == Keep::Codes ? values / 2 : 0);
  }
}

// A model with its quantizers, everything trained.
struct Trained {
  Trained(const char* kind, const char* plan, at::ScalarType dtype, Keep keep)
      : model(testing::tiny_config_of_kind(kind), dtype) {
    at::set_num_threads(1);
    initialize_weights(model, 3);
    ResolvedPlan resolved = QuantPlan::load(plan).resolve(model.weights());
    for (auto& [name, weight] : resolved.weights) weight.quantizes_input = weight.quantizes_output = false;
    resolved.key_value_cache = Scheme::Q8_0;
    set = prepare(model, resolved, {});
    set.keep(keep);
    for (auto& [name, parameter] : model.parameters()) leaves[name] = parameter;
    for (LearnedScale* scale : set.scales()) leaves["scale of " + scale->name()] = scale->log_change();
    for (auto& [name, leaf] : leaves) leaf.set_requires_grad(true);
    model.recompute_layers(true);
  }

  at::Tensor loss(int64_t tokens) const {
    const at::Tensor ids = at::arange(tokens, at::kLong).mul(37).add(11).remainder(model.config().vocabulary_size);
    return cross_entropy_sum(model, model.hidden_states(PackedTokens::single(ids)), ids.roll(-1));
  }

  Gemma4Model model;
  FakeQuantSet set;
  std::map<std::string, at::Tensor> leaves;
};

TEST_P(KeepTest, ModelsTrainWithTheSameBits) {
  for (const auto& [kind, plan] : {std::pair("shared", "q4_0"), std::pair("shared", "mobile-w4"),
                                   std::pair("experts", "q4_0"), std::pair("dense", "q4_0-q8-tables")}) {
    Trained wanted(kind, plan, GetParam(), Keep::Values);
    const at::Tensor wanted_loss = wanted.loss(40);
    torch::autograd::backward({wanted_loss}, {});
    for (const Keep keep : {Keep::Codes, Keep::Nothing}) {
      SCOPED_TRACE(std::string(kind) + " " + plan + " " + name_of(keep));
      Trained found(kind, plan, GetParam(), keep);
      const at::Tensor loss = found.loss(40);
      EXPECT_TRUE(same_bits(loss.detach(), wanted_loss.detach()));
      torch::autograd::backward({loss}, {});
      for (const auto& [name, leaf] : wanted.leaves) {
        ASSERT_EQ(found.leaves.at(name).grad().defined(), leaf.grad().defined()) << name;
        if (!leaf.grad().defined()) continue;
        EXPECT_TRUE(same_bits(found.leaves.at(name).grad(), leaf.grad())) << name;
      }
    }
  }
}

// With recomputed layers no forward value outlives its use: what is held between the passes are codes, or nothing.
TEST_P(KeepTest, ForwardValuesOfRecomputedLayersDoNotWaitForTheBackwardPass) {
  std::map<Keep, int64_t> held;
  for (const Keep keep : kAll) {
    Trained trained("dense", "q4_0", GetParam(), keep);
    const testing::CountingAllocator counter;
    const at::Tensor loss = trained.loss(16);
    held[keep] = counter.bytes();
  }
  const WeightTable table(testing::tiny_config_of_kind("dense"));
  int64_t values = 0;
  for (const auto& [name, rule] : QuantPlan::load("q4_0").resolve(table).weights) {
    if (scheme(rule.scheme).is_quantized()) values += table.find(name)->elements();
  }
  const int64_t value_bytes = GetParam() == at::kFloat ? 4 : 2;
  EXPECT_EQ(held[Keep::Values] - held[Keep::Nothing], value_bytes * values);
  EXPECT_EQ(held[Keep::Codes] - held[Keep::Nothing], values / 32 * 18);
}

TEST_P(KeepTest, AFrozenHeadKeepsItsValueInAFile) {
  for (const auto& [kind, plan] :
       {std::pair("shared", "q4_0"), std::pair("dense", "mobile-w4"), std::pair("experts", "q4_0")}) {
    SCOPED_TRACE(std::string(kind) + " " + plan);
    const testing::TemporaryFolder folder;
    std::map<Keep, std::map<std::string, at::Tensor>> gradients;
    std::map<Keep, at::Tensor> losses;
    for (const Keep keep : {Keep::Values, Keep::Nothing}) {
      Trained trained(kind, plan, GetParam(), keep);
      Projection& head = trained.model.projection(trained.model.head().name);
      const auto quantizer = head.weight_transform;
      trained.set.keep_frozen_head_in(folder.path());
      EXPECT_EQ(head.weight_transform, quantizer) << "a head that learns";
      head.weight.set_requires_grad(false);
      for (LearnedScale* scale : trained.set.scales()) scale->log_change().set_requires_grad(false);
      if (keep == Keep::Nothing) {
        trained.set.keep_frozen_head_in(folder.path());
        EXPECT_NE(head.weight_transform, quantizer);
      }
      trained.loss(40);
      losses[keep] = trained.loss(40);  // of what the first pass made
      torch::autograd::backward({losses[keep]}, {});
      trained.set.check_all_fired();
      for (auto& [name, leaf] : trained.leaves) gradients[keep][name] = leaf.grad();
      trained.set.enable(QuantizedParts::none());
      losses[keep] = at::stack({losses[keep].detach(), trained.loss(40).detach()});
    }
    EXPECT_TRUE(same_bits(losses[Keep::Nothing], losses[Keep::Values]));
    for (const auto& [name, gradient] : gradients[Keep::Values]) {
      ASSERT_EQ(gradients[Keep::Nothing][name].defined(), gradient.defined()) << name;
      if (!gradient.defined()) continue;
      EXPECT_TRUE(same_bits(gradients[Keep::Nothing][name], gradient)) << name;
    }
  }
}

TEST_P(KeepTest, ValuesInAFileTakeNoMemory) {
  at::set_num_threads(1);
  const testing::TemporaryFolder folder;
  const at::Tensor master = at::randn({64, 512}, GetParam());
  const auto quantizer = std::make_shared<WeightFakeQuantizer>("w", Scheme::Q4_0, std::span<const Float16>());
  const at::Tensor wanted = WeightFakeQuantizer("w", Scheme::Q4_0, {}).apply(master);
  FrozenValues<WeightFakeQuantizer> frozen(quantizer, folder.path());
  const testing::CountingAllocator counter;
  EXPECT_TRUE(same_bits(frozen.apply(master), wanted));
  EXPECT_EQ(frozen.apply(master).const_data_ptr(), frozen.apply(master).const_data_ptr());
  EXPECT_EQ(counter.bytes(), 0);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, KeepTest, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& test) { return test.param == at::kFloat ? "Float" : "BFloat16"; });

}  // namespace
}  // namespace qat
