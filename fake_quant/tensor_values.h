// The values of a contiguous CPU tensor as a span.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <span>

#include "core/error.h"

namespace qat {

template <class T>
std::span<T> values_of(const at::Tensor& tensor) {
  QAT_CHECK(tensor.is_contiguous() && tensor.element_size() == sizeof(T));
  return {static_cast<T*>(tensor.data_ptr()), static_cast<size_t>(tensor.numel())};
}

}  // namespace qat
