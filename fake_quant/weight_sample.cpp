#include "fake_quant/weight_sample.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "core/random.h"
#include "fake_quant/tensor_values.h"

namespace qat {

at::Tensor sampled_groups(int64_t groups, int64_t width) {
  constexpr int64_t kSampledValues = int64_t{1} << 14;
  const int64_t count = std::min(groups, std::max<int64_t>(1, kSampledValues / width));
  // Evenly spaced groups would meet the same few columns in every row.
  SplitMix64 random(static_cast<uint64_t>(groups));
  at::Tensor places = at::empty({count}, at::kLong);
  int64_t part = 0;
  for (int64_t& place : values_of<int64_t>(places)) {
    const int64_t begin = part * groups / count;
    const int64_t end = ++part * groups / count;
    place = begin + static_cast<int64_t>(random.below(static_cast<uint64_t>(end - begin)));
  }
  return places;
}

}  // namespace qat
