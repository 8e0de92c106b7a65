#include "model/mapped_tensor.h"

#include <ATen/ops/from_blob.h>

#include "core/error.h"

namespace qat {

namespace {

at::ScalarType dtype_of(ElementType type) {
  switch (type) {
    case ElementType::F32:
      return at::kFloat;
    case ElementType::F16:
      return at::kHalf;
    default:
      QAT_CHECK(type == ElementType::BF16);
      return at::kBFloat16;
  }
}

}  // namespace

at::Tensor mapped_tensor(const TensorView& tensor) {
  // from_blob wants a mutable pointer; the tensor is only read.
  void* bytes = const_cast<std::byte*>(tensor.bytes.data());
  return at::from_blob(bytes, tensor.shape, at::TensorOptions(dtype_of(tensor.type)));
}

at::Tensor aligned_tensor(const TensorView& tensor) {
  const auto address = reinterpret_cast<uintptr_t>(tensor.bytes.data());
  const bool aligned = address % static_cast<uintptr_t>(element_bytes(tensor.type)) == 0;
  return aligned ? mapped_tensor(tensor) : mapped_tensor(tensor).clone();
}

}  // namespace qat
