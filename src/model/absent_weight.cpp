#include "model/absent_weight.h"

#include <ATen/ops/empty.h>
#include <c10/core/CPUAllocator.h>

namespace qat {

namespace {

void set_memory(const at::Tensor& weight, size_t bytes) {
  const c10::Storage& storage = weight.storage();
  storage.set_data_ptr_noswap(c10::GetCPUAllocator()->allocate(bytes));
  storage.set_nbytes(bytes);
}

}  // namespace

at::Tensor absent_weight(at::IntArrayRef shape, at::ScalarType dtype) {
  at::Tensor weight = at::empty({0}, dtype);
  weight.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
  return weight;
}

bool is_absent(const at::Tensor& weight) { return weight.numel() > 0 && weight.storage().nbytes() == 0; }

void give_memory(const at::Tensor& weight) { set_memory(weight, weight.nbytes()); }

void take_memory(const at::Tensor& weight) { set_memory(weight, 0); }

}  // namespace qat
