#include "fake_quant/frozen_values.h"

#include <ATen/ops/from_blob.h>

#include "core/scratch_file.h"
#include "model/apply_by_rows.h"

namespace qat {

at::Tensor values_in_file(WeightTransform& transform, const at::Tensor& master, const std::filesystem::path& folder) {
  const auto file = std::make_shared<ScratchFile>(folder, master.nbytes());
  const at::Tensor result = at::from_blob(
      file->bytes().data(), master.sizes(), [file](void*) {}, at::device(at::kCPU).dtype(master.dtype()));
  apply_by_rows(transform, master, result);
  return result;
}

}  // namespace qat
