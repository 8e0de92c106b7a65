#include "fake_quant/frozen_values.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "core/scratch_file.h"

namespace qat {

at::Tensor values_in_file(WeightTransform& transform, const at::Tensor& master, const std::filesystem::path& folder) {
  const c10::NoGradGuard no_grad;
  const auto file = std::make_shared<ScratchFile>(folder, master.nbytes());
  const at::Tensor result = at::from_blob(
      file->bytes().data(), master.sizes(), [file](void*) {}, at::device(at::kCPU).dtype(master.dtype()));
  const at::Tensor flat = master.reshape({-1, master.size(-1)});
  const at::Tensor rows_of_result = result.view(flat.sizes());
  const int64_t step = std::max<int64_t>(1, kConvertedValues / flat.size(1));
  for (int64_t first = 0; first < flat.size(0); first += step) {
    const int64_t count = std::min(step, flat.size(0) - first);
    const at::Tensor rows = at::arange(first, first + count, at::kLong);
    rows_of_result.narrow(0, first, count).copy_(transform.apply_rows(flat.narrow(0, first, count), rows));
  }
  return result;
}

}  // namespace qat
