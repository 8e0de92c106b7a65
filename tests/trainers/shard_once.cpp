// One process of a group that holds its share of the parameters, to be started several times: shard_once CONFIG
// Beside the shared model it computes with a whole one, and fails where bytes or gradients are not what they should be.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>

#include <algorithm>
#include <cstdio>
#include <map>

#include "core/error.h"
#include "support/counting_allocator.h"
#include "trainers/adamw.h"
#include "trainers/sharded_weights.h"

namespace qat {
namespace {

struct Run {
  // Shared if `sharded` is given.
  Run(const TrainConfig& config, const BaseModel& base, const std::vector<std::string>& frozen, ShardedWeights* sharded)
      : model(base.config(), at::kBFloat16,
              [&, in_file = base.without_memory(frozen, at::kBFloat16)](const auto& weight) {
                return in_file(weight) || (sharded != nullptr && sharded->contains(weight));
              }) {
    model.recompute_layers(config.activation_checkpointing == "layers");
    base.fill(model, 1, [&](const WeightSpec& weight, Projection& projection) {
      if (sharded != nullptr && sharded->contains(weight)) sharded->take(weight, projection, at::kBFloat16);
    });
    trained = select_trained_weights(model, frozen);
    fake_quant = base.attach_fake_quant(model);
  }

  void backward() {
    const at::Tensor tokens = at::arange(24, at::kLong) + 2;
    model.hidden_states(PackedTokens::single(tokens)).to(at::kFloat).square().sum().backward();
  }

  Gemma4Model model;
  std::vector<TrainedWeight> trained;
  FakeQuantSet fake_quant;
};

int64_t memory_of(const std::vector<TrainedWeight>& weights) {
  int64_t bytes = 0;
  for (const TrainedWeight& weight : weights) bytes += static_cast<int64_t>(weight.parameter.storage().nbytes());
  return bytes;
}

void expect(bool is_true, const std::string& what) {
  if (!is_true) throw Error(what);
}

void expect_own_part(const Run& whole, const Run& shared, ProcessGroup& group, const char* when) {
  int64_t at_all = 0, sharded = 0, largest = 0;
  for (const TrainedWeight& weight : shared.trained) {
    const auto bytes = static_cast<int64_t>(weight.parameter.nbytes());
    (weight.is_sharded ? sharded : at_all) += bytes;
    largest = std::max(largest, bytes);
  }
  expect(memory_of(whole.trained) == at_all + sharded, "the whole model is not whole");
  const int64_t mine = memory_of(shared.trained) - at_all;
  expect(static_cast<int64_t>(group.sum({static_cast<double>(mine)}).front()) == sharded,
         join(when, ": the processes do not hold every parameter once"));
  expect(mine <= sharded / group.size() + largest && 50 * at_all < sharded,
         join(when, ": ", mine, " bytes of ", sharded, " are here, of ", group.size(), " processes"));
}

// What a step takes beyond what is there before it, with the quantized values that it keeps.
int64_t growth(Run& run) {
  run.fake_quant.changed();
  const testing::CountingAllocator counter;
  run.backward();
  return counter.peak();
}

int run(const TrainConfig& config, ProcessGroup& group) {
  at::set_num_threads(1);
  const BaseModel base(config);
  const std::vector<std::string> frozen = frozen_weights(config, base);
  Run whole(config, base, frozen, nullptr);
  ShardedWeights sharded(config, base, frozen, group);
  Run shared(config, base, frozen, &sharded);
  expect_own_part(whole, shared, group, "at first");

  const bool codes = config.quantization.keep == "codes";
  const int64_t of_whole = growth(whole), of_shared = growth(shared);
  std::map<int64_t, int64_t> layers;
  for (const WeightSpec& weight : base.table().weights()) {
    if (sharded.contains(weight)) layers[*weight.layer] += weight.elements();
  }
  const int64_t layer = layers.begin()->second;
  // Two layers at a time have come, as codes (4.5 bits) or BF16; and what is kept of quantized weights is the owner's.
  const int64_t come = codes ? 2 * layer * 9 / 16 : 2 * layer * 2;
  const int64_t kept = static_cast<int64_t>(layers.size()) * layer * (codes ? 9 : 32) / 16;
  const int64_t limit = of_whole - kept + kept / group.size() + come + come / 4;
  expect(of_shared <= limit,
         join("a step takes ", of_shared, " bytes, more than ", limit, "; of a whole model ", of_whole));
  expect_own_part(whole, shared, group, "after a step");

  for (size_t i = 0; i < whole.trained.size(); ++i) {
    const at::Tensor &wanted = whole.trained[i].parameter.grad(), &found = shared.trained[i].parameter.grad();
    expect(found.defined() && found.equal(wanted), "the gradient of " + whole.trained[i].name + " is another one");
  }
  return 0;
}

}  // namespace
}  // namespace qat

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  qat::ProcessGroup group = qat::ProcessGroup::from_environment();
  return group.run([&] { return qat::run(qat::TrainConfig::load(argv[1], {}), group); });
}
