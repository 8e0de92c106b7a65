// Speed of the block codec on one thread, in weights per second, beside a memory copy of the same input in the same
// run: the ratio to the copy is the figure that means the same on every machine.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "core/random.h"
#include "quant/block_codec.h"
#include "quant/block_scales.h"
#include "quant/lattice.h"

namespace {

using namespace qat;

constexpr size_t kValues = size_t{1} << 20;  // 2 MiB of BF16: streams through the cache as an export does

std::vector<BFloat16> random_master() {
  SplitMix64 random(3);
  std::vector<BFloat16> master(kValues);
  for (BFloat16& value : master) {
    const double sum = random.uniform() + random.uniform() + random.uniform() + random.uniform() - 2.0;
    value = to_bfloat16(static_cast<float>(0.03 * sum));
  }
  return master;
}

void report(benchmark::State& state) {
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(kValues));
}

void copy_master(benchmark::State& state) {
  const auto master = random_master();
  std::vector<BFloat16> copy(kValues);
  for (auto _ : state) {
    std::memcpy(copy.data(), master.data(), kValues * sizeof(BFloat16));
    benchmark::DoNotOptimize(copy.data());
    benchmark::ClobberMemory();
  }
  report(state);
}

void encode(benchmark::State& state, Scheme id) {
  const auto master = random_master();
  std::vector<std::byte> blocks(static_cast<size_t>(scheme(id).row_bytes(static_cast<int64_t>(kValues))));
  for (auto _ : state) {
    encode_blocks(id, std::span<const BFloat16>(master), {}, blocks);
    benchmark::DoNotOptimize(blocks.data());
    benchmark::ClobberMemory();
  }
  report(state);
}

void decode(benchmark::State& state, Scheme id) {
  const auto master = random_master();
  std::vector<std::byte> blocks(static_cast<size_t>(scheme(id).row_bytes(static_cast<int64_t>(kValues))));
  encode_blocks(id, std::span<const BFloat16>(master), {}, blocks);
  std::vector<float> values(kValues);
  for (auto _ : state) {
    decode_blocks(id, blocks, values);
    benchmark::DoNotOptimize(values.data());
    benchmark::ClobberMemory();
  }
  report(state);
}

void fake_quantize(benchmark::State& state, Scheme id) {
  const auto master = random_master();
  std::vector<BFloat16> values(kValues);
  for (auto _ : state) {
    fake_quantize_blocks(id, std::span<const BFloat16>(master), {}, std::span(values));
    benchmark::DoNotOptimize(values.data());
    benchmark::ClobberMemory();
  }
  report(state);
}

void search_scales(benchmark::State& state) {
  const auto master = random_master();
  std::vector<Float16> scales(kValues / 32);
  for (auto _ : state) {
    search_block_scales(master, scales);
    benchmark::DoNotOptimize(scales.data());
    benchmark::ClobberMemory();
  }
  report(state);
}

// Of masters that lie on the lattice with this largest code, or on none (0). On every thread its own.
void recover_scales(benchmark::State& state, int largest_code) {
  auto master = random_master();
  for (size_t first = 0; largest_code != 0 && first < kValues; first += 32) {
    float largest = 0;
    for (size_t i = first; i < first + 32; ++i) largest = std::fmax(largest, std::fabs(to_float(master[i])));
    const float step = to_float(to_float16(largest / static_cast<float>(largest_code)));
    for (size_t i = first; i < first + 32; ++i) {
      const float code = std::fmax(std::fmin(std::nearbyint(to_float(master[i]) / step), 7.0f), -8.0f);
      master[i] = to_bfloat16(step * code);
    }
  }
  std::vector<Float16> scales(kValues / 32);
  for (auto _ : state) {
    benchmark::DoNotOptimize(recover_block_scales(std::span<const BFloat16>(master), scales));
    benchmark::ClobberMemory();
  }
  report(state);
}

void decode_forward(benchmark::State& state, Scheme id) {
  const auto master = random_master();
  std::vector<std::byte> blocks(static_cast<size_t>(scheme(id).row_bytes(static_cast<int64_t>(kValues))));
  encode_blocks(id, std::span<const BFloat16>(master), {}, blocks);
  std::vector<BFloat16> values(kValues);
  for (auto _ : state) {
    decode_forward_values(id, blocks, std::span(values));
    benchmark::DoNotOptimize(values.data());
    benchmark::ClobberMemory();
  }
  report(state);
}

BENCHMARK(copy_master);
BENCHMARK(search_scales);
BENCHMARK_CAPTURE(recover_scales, codes_to_7, 7)->ThreadRange(1, 2)->UseRealTime();
BENCHMARK_CAPTURE(recover_scales, codes_to_8, 8)->ThreadRange(1, 2)->UseRealTime();
BENCHMARK_CAPTURE(recover_scales, on_no_lattice, 0)->ThreadRange(1, 2)->UseRealTime();
BENCHMARK_CAPTURE(decode_forward, q4_0, Scheme::Q4_0);
BENCHMARK_CAPTURE(encode, q4_0, Scheme::Q4_0);
BENCHMARK_CAPTURE(encode, q8_0, Scheme::Q8_0);
BENCHMARK_CAPTURE(encode, q6_k, Scheme::Q6_K);
BENCHMARK_CAPTURE(encode, bf16, Scheme::BF16);
BENCHMARK_CAPTURE(encode, f32, Scheme::F32);
BENCHMARK_CAPTURE(decode, q4_0, Scheme::Q4_0);
BENCHMARK_CAPTURE(decode, q8_0, Scheme::Q8_0);
BENCHMARK_CAPTURE(decode, q6_k, Scheme::Q6_K);
BENCHMARK_CAPTURE(fake_quantize, q4_0, Scheme::Q4_0);
BENCHMARK_CAPTURE(fake_quantize, q8_0, Scheme::Q8_0);
BENCHMARK_CAPTURE(fake_quantize, q6_k, Scheme::Q6_K);

}  // namespace

BENCHMARK_MAIN();
