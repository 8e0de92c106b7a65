// What full mobile fake quantization (weights, both ends of every linear, KV cache, learned scales) adds to a training
// step, on layers of E2B's shape: three sliding layers, a full one, and a double-wide one that shares keys and values.
#include <ATen/core/Tensor.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <benchmark/benchmark.h>
#include <torch/csrc/autograd/autograd.h>

#include <nlohmann/json.hpp>

#include "core/process_memory.h"
#include "fake_quant/prepare.h"
#include "model/chunked_head.h"
#include "model/gemma4_model.h"

namespace {

constexpr const char* kConfig = R"({"model_type": "gemma4_text", "hidden_size": 1536, "num_hidden_layers": 5,
  "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
  "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "global_head_dim": 512, "intermediate_size": 6144,
  "num_kv_shared_layers": 1, "use_double_wide_mlp": true, "sliding_window": 512, "vocab_size": 4096,
  "hidden_size_per_layer_input": 256, "final_logit_softcapping": 30.0})";

void calibrate_by_one_pass(const qat::Gemma4Model& model, qat::FakeQuantSet& set, const qat::PackedTokens& batch) {
  const at::Tensor first_rows = at::tensor({int64_t{0}}, at::kLong);
  set.start_calibration(&first_rows);
  model.hidden_states(batch);
  set.finish_calibration({}, {});
}

void step(benchmark::State& state, at::ScalarType dtype, const char* plan) {
  qat::Gemma4Model model(qat::Gemma4Config::parse(nlohmann::json::parse(kConfig), "benchmark"), dtype);
  qat::initialize_weights(model, 1);
  const at::Tensor tokens =
      at::randint(3, model.config().vocabulary_size, {state.range(0)}, at::TensorOptions(at::kLong));
  const qat::PackedTokens batch = qat::PackedTokens::single(tokens);
  qat::FakeQuantSet set;
  if (plan != nullptr) {
    set = qat::prepare(model, qat::QuantPlan::load(plan).resolve(model.weights()), {});
    calibrate_by_one_pass(model, set, batch);
    for (qat::LearnedScale* scale : set.scales()) at::Tensor(scale->log_change()).set_requires_grad(true);
  }
  for (auto& [name, parameter] : model.parameters()) parameter.set_requires_grad(true);
  const auto run = [&] {
    set.changed();
    const at::Tensor loss = qat::cross_entropy_sum(model, model.hidden_states(batch), tokens.roll(-1));
    torch::autograd::backward({loss}, {});
    benchmark::DoNotOptimize(loss.item<float>());
    for (auto& [name, parameter] : model.parameters()) parameter.mutable_grad() = at::Tensor();
    for (qat::LearnedScale* scale : set.scales()) at::Tensor(scale->log_change()).mutable_grad() = at::Tensor();
  };
  run();  // takes the memory that later steps find again
  for (auto _ : state) run();
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

BENCHMARK_CAPTURE(step, bf16_plain, at::kBFloat16, nullptr)->Arg(2048)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(step, bf16_mobile_e2b, at::kBFloat16, "mobile-e2b")
    ->Arg(2048)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(step, fp32_plain, at::kFloat, nullptr)->Arg(2048)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(step, fp32_mobile_e2b, at::kFloat, "mobile-e2b")
    ->Arg(2048)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace

int main(int argc, char** argv) {
  qat::keep_freed_memory();  // as training does
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
