// Time of attention forward and backward: a sliding layer of 8,192 tokens must take no more than a quarter of a full
// one.
//   qat_attention_benchmark [--benchmark_filter=...]
#include <ATen/core/Tensor.h>
#include <ATen/ops/randn.h>
#include <benchmark/benchmark.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/attention.h"

namespace {

// The heads of Gemma 3 270M.
constexpr int64_t kHeads = 4;
constexpr int64_t kKeyValueHeads = 1;
constexpr int64_t kHeadDim = 256;

void attention(benchmark::State& state, bool with_backward, at::ScalarType dtype) {
  const int64_t tokens = state.range(0);
  const int64_t window = state.range(1);
  const auto random = [&](int64_t heads) {
    return at::randn({tokens, heads, kHeadDim}).to(dtype).requires_grad_(with_backward);
  };
  const at::Tensor query = random(kHeads);
  const at::Tensor key = random(kKeyValueHeads);
  const at::Tensor value = random(kKeyValueHeads);
  const at::Tensor gradient = at::randn(query.sizes()).to(dtype);
  for (auto _ : state) {
    const at::Tensor output = qat::attention(query, key, value, {{0, tokens}, window, 0}, 1.0 / 16);
    if (with_backward) torch::autograd::grad({output}, {query, key, value}, {gradient});
    benchmark::DoNotOptimize(output.const_data_ptr());
  }
  state.SetItemsProcessed(state.iterations() * tokens);
}

void add_shapes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"tokens", "window"})->Args({1024, 512})->Args({1024, 0})->Args({8192, 512})->Args({8192, 0});
  benchmark->UseRealTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK_CAPTURE(attention, forward_fp32, false, at::kFloat)->Apply(add_shapes);
BENCHMARK_CAPTURE(attention, forward_backward_fp32, true, at::kFloat)->Apply(add_shapes);
BENCHMARK_CAPTURE(attention, forward_backward_bf16, true, at::kBFloat16)->Apply(add_shapes);

}  // namespace

BENCHMARK_MAIN();
