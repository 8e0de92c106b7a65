#include "gemma4/tensor_faults.h"

namespace qat {

std::string describe(ElementType type, const std::vector<int64_t>& shape) {
  return join(element_name(type), " ", shape_text(shape));
}

std::string describe(const TensorView* tensor) {
  return tensor == nullptr ? "is missing" : "is " + describe(tensor->type, tensor->shape);
}

std::optional<Scheme> float_scheme(ElementType type) {
  if (type == ElementType::BF16) return Scheme::BF16;
  if (type == ElementType::F16) return Scheme::F16;
  if (type == ElementType::F32) return Scheme::F32;
  return std::nullopt;
}

}  // namespace qat
