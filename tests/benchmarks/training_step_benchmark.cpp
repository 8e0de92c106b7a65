// Tokens per second of forward, loss and backward of a model shaped like Gemma 3 270M with random weights.
#include <ATen/core/Tensor.h>
#include <ATen/ops/randint.h>
#include <benchmark/benchmark.h>
#include <torch/csrc/autograd/autograd.h>

#include <nlohmann/json.hpp>

#include "model/chunked_head.h"
#include "model/gemma4_model.h"

namespace {

constexpr const char* kConfig = R"({"model_type": "gemma3_text", "hidden_size": 640, "num_hidden_layers": 18,
  "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "intermediate_size": 2048, "vocab_size": 262144,
  "sliding_window": 512, "query_pre_attn_scalar": 256, "sliding_window_pattern": 6})";

void training_step(benchmark::State& state, at::ScalarType dtype, bool with_backward) {
  qat::Gemma4Model model(qat::Gemma4Config::parse(nlohmann::json::parse(kConfig), "benchmark"), dtype);
  qat::initialize_weights(model, 1);
  for (auto& [name, parameter] : model.parameters()) parameter.set_requires_grad(with_backward);
  const at::Tensor tokens =
      at::randint(3, model.config().vocabulary_size, {state.range(0)}, at::TensorOptions(at::kLong));
  const qat::PackedTokens batch = qat::PackedTokens::single(tokens);
  for (auto _ : state) {
    const at::Tensor loss = qat::cross_entropy_sum(model, model.hidden_states(batch), tokens.roll(-1));
    if (with_backward) torch::autograd::backward({loss}, {});
    benchmark::DoNotOptimize(loss.item<float>());
    for (auto& [name, parameter] : model.parameters()) parameter.mutable_grad() = at::Tensor();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

BENCHMARK_CAPTURE(training_step, fp32, at::kFloat, true)->Arg(1024)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(training_step, bf16, at::kBFloat16, true)->Arg(1024)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(training_step, loss_only_fp32, at::kFloat, false)
    ->Arg(1024)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
