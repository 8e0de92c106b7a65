// Layers that are computed again in the backward pass: the same bits as layers that keep everything, for models of
// every kind under weight, activation and cache quantization, and far fewer bytes.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "fake_quant/prepare.h"
#include "model/chunked_head.h"
#include "support/counting_allocator.h"
#include "support/tiny_model_folder.h"

namespace qat {
namespace {

constexpr int64_t kTokens = 48;

struct Case {
  const char* kind;
  const char* plan;  // null: none
  at::ScalarType dtype;
};

std::string name(const Case& wanted) {
  std::string text = std::string(wanted.kind) + "_" + (wanted.plan == nullptr ? "plain" : wanted.plan) +
                     (wanted.dtype == at::kFloat ? "_fp32" : "_bf16");
  std::replace(text.begin(), text.end(), '-', '_');
  return text;
}

void PrintTo(const Case& wanted, std::ostream* out) { *out << name(wanted); }

PackedTokens two_documents(const Gemma4Config& config, int64_t tokens) {
  const at::Tensor ids = at::arange(tokens, at::kLong).mul(37).add(11).remainder(config.vocabulary_size);
  return {ids, {0, tokens / 3, tokens}};
}

// A model with its quantizers, calibrated, everything trained.
struct Trained {
  explicit Trained(const Case& wanted)
      : model(testing::tiny_config_of_kind(wanted.kind), wanted.dtype), batch(two_documents(model.config(), kTokens)) {
    at::set_num_threads(1);
    initialize_weights(model, 3);
    if (wanted.plan != nullptr) {
      ResolvedPlan plan = QuantPlan::load(wanted.plan).resolve(model.weights());
      if (!plan.key_value_cache) plan.key_value_cache = Scheme::Q8_0;
      set = prepare(model, plan, {});
      const at::NoGradGuard no_grad;
      const at::Tensor first_rows = at::tensor({int64_t{0}, kTokens / 3});
      set.start_calibration(&first_rows);
      model.hidden_states(batch);
      set.finish_calibration({}, {});
    }
    for (auto& [name, parameter] : model.parameters()) leaves[name] = parameter;
    for (LearnedScale* scale : set.scales()) leaves["scale of " + scale->name()] = scale->log_change();
    for (auto& [name, leaf] : leaves) leaf.set_requires_grad(true);
  }

  at::Tensor loss() const { return cross_entropy_sum(model, model.hidden_states(batch), batch.tokens.roll(-1)); }

  Gemma4Model model;
  PackedTokens batch;
  FakeQuantSet set;
  std::map<std::string, at::Tensor> leaves;
};

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.defined() == b.defined() &&
         (!a.defined() || a.reshape({-1}).view(at::kByte).equal(b.reshape({-1}).view(at::kByte)));
}

class Recomputation : public ::testing::TestWithParam<Case> {};

TEST_P(Recomputation, GivesTheSameLossesAndGradients) {
  Trained kept(GetParam()), again(GetParam());
  again.model.recompute_layers(true);
  for (int pass = 0; pass < 2; ++pass) {  // the second adds to gradients and finds cached weights
    const at::Tensor wanted = kept.loss();
    const at::Tensor found = again.loss();
    EXPECT_TRUE(same_bits(found.detach(), wanted.detach()));
    torch::autograd::backward({wanted}, {});
    torch::autograd::backward({found}, {});
  }
  EXPECT_NO_THROW(again.set.check_all_fired());
  int with_gradient = 0;
  for (const auto& [name, leaf] : kept.leaves) {
    EXPECT_TRUE(same_bits(again.leaves.at(name).grad(), leaf.grad())) << name;
    with_gradient += leaf.grad().defined() && leaf.grad().ne(0).any().item<bool>() ? 1 : 0;
  }
  EXPECT_GT(with_gradient, static_cast<int>(kept.leaves.size()) / 2);
}

TEST_P(Recomputation, WatchersSeeEveryValueOnce) {
  Trained kept(GetParam()), again(GetParam());
  again.model.recompute_layers(true);
  std::map<std::string, std::vector<int8_t>> codes[2];
  std::map<int64_t, std::vector<std::byte>> blocks[2];
  int64_t counted[2] = {0, 0};
  for (int side = 0; side < 2; ++side) {
    Trained& trained = side == 0 ? kept : again;
    for (const StaticEdge& edge : trained.set.edges) edge.quantizer->record_into(&codes[side][edge.quantizer->name()]);
    for (const BlockCache& cache : trained.set.block_caches) cache.key->record_into(&blocks[side][cache.layer]);
    trained.set.start_statistics();
    torch::autograd::backward({trained.loss()}, {});
    for (const NamedStatistics& seen : trained.set.stop_statistics()) counted[side] += seen.statistics.count();
    for (const StaticEdge& edge : trained.set.edges) edge.quantizer->record_into(nullptr);
    for (const BlockCache& cache : trained.set.block_caches) cache.key->record_into(nullptr);
  }
  EXPECT_EQ(codes[1], codes[0]);
  EXPECT_EQ(blocks[1], blocks[0]);
  EXPECT_EQ(counted[1], counted[0]);
}

// Only the head learns: no layer has anything to go back through.
TEST_P(Recomputation, AllowsLayersWithoutGradients) {
  Trained trained(GetParam());
  trained.model.recompute_layers(true);
  for (auto& [name, leaf] : trained.leaves) leaf.set_requires_grad(name == "norm.weight");
  torch::autograd::backward({trained.loss()}, {});
  for (const auto& [name, leaf] : trained.leaves) EXPECT_EQ(leaf.grad().defined(), name == "norm.weight") << name;
}

std::vector<Case> cases() {
  std::vector<Case> result;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const char* kind : {"dense", "shared", "value_is_key", "experts"}) {
      result.push_back({kind, nullptr, dtype});
      result.push_back({kind, "q4_0", dtype});
      if (std::string(kind) != "experts") result.push_back({kind, "mobile-w4", dtype});
    }
  }
  return result;
}

INSTANTIATE_TEST_SUITE_P(Kinds, Recomputation, ::testing::ValuesIn(cases()),
                         [](const auto& which) { return name(which.param); });

struct Bytes {
  int64_t kept;  // between the passes
  int64_t peak;
};

Bytes bytes_of_pass(Trained& trained, int64_t tokens) {
  trained.batch = two_documents(trained.model.config(), tokens);
  torch::autograd::backward({trained.loss()}, {});  // gradients and cached weights exist from here on
  const testing::CountingAllocator counter;
  const at::Tensor hidden = trained.model.hidden_states(trained.batch);
  const int64_t kept = counter.bytes();
  torch::autograd::backward({hidden.sum()}, {});
  return {kept, counter.peak()};
}

TEST(RecomputationMemory, KeepsTheInputsOfLayersOnly) {
  Trained kept({"shared", "mobile-w4", at::kFloat}), again({"shared", "mobile-w4", at::kFloat});
  again.model.recompute_layers(true);
  const Gemma4Config& config = kept.model.config();
  const Bytes before = bytes_of_pass(kept, 512), few = bytes_of_pass(again, 512), many = bytes_of_pass(again, 1024);
  EXPECT_LT(3 * few.kept, before.kept);
  EXPECT_LT(2 * few.peak, before.peak);
  // Per token, in fp32: the hidden states before every layer and before and after the final norm with its factor, what
  // the embeddings keep, and keys and values of the donors, which are the layers of their own.
  int64_t values = (config.layer_count() + 2) * config.hidden_size + 1;
  values += 6 * config.layer_count() * config.per_layer_input_size + 2 * config.hidden_size;
  for (const LayerConfig& layer : config.layers) {
    if (!layer.key_value_donor) values += 2 * layer.key_value_width();
  }
  EXPECT_LT((many.kept - few.kept) / 512, 4 * values);
  EXPECT_GT((many.kept - few.kept) / 512, 2 * values);
}

}  // namespace
}  // namespace qat
