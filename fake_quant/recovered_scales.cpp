#include "fake_quant/recovered_scales.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <mutex>

#include "core/error.h"
#include "fake_quant/tensor_values.h"
#include "quant/grid.h"

namespace qat {

namespace {

constexpr int64_t kGrainBlocks = 1024;
constexpr auto kBlock = static_cast<size_t>(grid::kBlock);

template <class Value>
LatticeCounts recover(const at::Tensor& master, const at::Tensor& scale_tensor) {
  const auto values = values_of<const Value>(master);
  const auto scales = values_of<Float16>(scale_tensor);
  LatticeCounts counts;
  std::mutex adding;
  at::parallel_for(0, scale_tensor.numel(), kGrainBlocks, [&](int64_t begin, int64_t end) {
    const auto first = static_cast<size_t>(begin), count = static_cast<size_t>(end - begin);
    const LatticeCounts part =
        recover_block_scales(values.subspan(first * kBlock, count * kBlock), scales.subspan(first, count));
    const std::lock_guard lock(adding);
    counts += part;
  });
  return counts;
}

}  // namespace

RecoveredScales recovered_block_scales(const at::Tensor& master) {
  QAT_CHECK(master.numel() % grid::kBlock == 0);
  RecoveredScales result{at::empty({master.numel() / grid::kBlock}, at::kHalf), {}};
  switch (master.scalar_type()) {
    case at::kBFloat16:
      result.counts = recover<BFloat16>(master, result.scales);
      break;
    case at::kHalf:
      result.counts = recover<Float16>(master, result.scales);
      break;
    default:
      result.counts = recover<float>(master, result.scales);
  }
  return result;
}

}  // namespace qat
