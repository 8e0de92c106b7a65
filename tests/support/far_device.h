// A second device for LibTorch, made of host memory, on which tests can see what a GPU would do to the program: host
// code that reads a tensor's memory crashes (the addresses are none), an operation whose tensors lie on two devices
// throws, gradients are computed in threads of the device. Operations are those of the CPU, so that results can be
// compared bit for bit.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/operator_name.h>

#include <vector>

namespace qat::testing {

// "far:0" and "far:1", once a process asked for them.
inline constexpr const char* kFarDevice = "far:0";
inline constexpr int kFarDevices = 2;

// Registers them; may be called again.
at::Device far_device();

// The operations of LibTorch that ran on them so far, each once.
std::vector<c10::OperatorName> operations_run();

}  // namespace qat::testing
