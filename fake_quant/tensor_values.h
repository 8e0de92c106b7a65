// The values of a contiguous CPU tensor as a span. Memory of another device is never read as the host's.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <span>

#include "core/error.h"

namespace qat {

// A tensor whose values host code reads, or nothing: itself where it is on the CPU, else a copy.
inline at::Tensor on_cpu(const at::Tensor& tensor) { return tensor.defined() ? tensor.to(at::kCPU) : tensor; }

// Throws Error for a tensor of another device: what reads or writes its values has no form for that one.
inline void check_on_cpu(const at::Tensor& tensor) {
  if (tensor.is_cpu()) return;
  fail("this part of the program computes on the CPU only, and was given values on ", tensor.device().str(),
       "; run it with device = cpu, and report this configuration as an error of the program");
}

template <class T>
std::span<T> values_of(const at::Tensor& tensor) {
  check_on_cpu(tensor);
  QAT_CHECK(tensor.is_contiguous() && tensor.element_size() == sizeof(T));
  return {static_cast<T*>(tensor.data_ptr()), static_cast<size_t>(tensor.numel())};
}

inline std::span<std::byte> bytes_of(const at::Tensor& tensor) {
  check_on_cpu(tensor);
  QAT_CHECK(tensor.is_contiguous());
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

}  // namespace qat
