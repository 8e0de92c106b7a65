#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "core/random.h"
#include "model/gemma4_model.h"

namespace qat {

namespace {

constexpr double kDeviation = 0.02;
constexpr int64_t kBlock = int64_t{1} << 16;

// Normal values by Box and Muller, two from each pair of uniform ones.
void fill_normal(float* values, int64_t count, SplitMix64 random) {
  for (int64_t i = 0; i < count; i += 2) {
    const double radius = kDeviation * std::sqrt(-2.0 * std::log(1.0 - random.uniform()));
    const double angle = 2.0 * std::numbers::pi * random.uniform();
    values[i] = static_cast<float>(radius * std::cos(angle));
    if (i + 1 < count) values[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
}

// Blocks have generators of their own, so that the values do not depend on the number of threads.
void fill_normal(at::Tensor& weight, uint64_t seed) {
  at::Tensor flat = weight.view({-1});
  const int64_t elements = flat.size(0);
  const int64_t blocks = (elements + kBlock - 1) / kBlock;
  at::parallel_for(0, blocks, 1, [&](int64_t first_block, int64_t end_block) {
    std::vector<float> values(static_cast<size_t>(kBlock));
    for (int64_t block = first_block; block < end_block; ++block) {
      const int64_t first = block * kBlock;
      const int64_t count = std::min(kBlock, elements - first);
      SplitMix64 seeds(seed + static_cast<uint64_t>(block));
      fill_normal(values.data(), count, SplitMix64(seeds.next()));
      const at::NoGradGuard no_gradients;
      flat.narrow(0, first, count).copy_(at::from_blob(values.data(), {count}));
    }
  });
}

}  // namespace

void initialize_weights(Gemma4Model& model, uint64_t seed,
                        const std::function<void(const WeightSpec&, Projection&)>& initialized) {
  const at::NoGradGuard no_gradients;
  const Gemma4Config& config = model.config();
  SplitMix64 seeds(seed);
  for (const WeightSpec& spec : model.weights().weights()) {
    at::Tensor weight = model.parameter(spec.name);
    const uint64_t own_seed = seeds.next();
    if (!is_matrix(spec.role)) {
      weight.fill_(spec.role == WeightRole::Norm ? 1.0 - config.norm_offset : 1.0);
      continue;
    }
    const bool has_memory = weight.defined();
    if (!has_memory) weight = at::empty(spec.shape, at::TensorOptions(model.dtype()).device(model.device()));
    fill_normal(weight, own_seed);
    if (is_table(spec.role) && config.pad_token < spec.shape.front()) weight.select(0, config.pad_token).zero_();
    if (has_memory) continue;
    Projection& projection = model.projection(spec.name);
    projection.weight = weight;
    if (initialized) initialized(spec, projection);
  }
}

}  // namespace qat
