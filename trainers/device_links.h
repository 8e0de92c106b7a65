// Links between the devices of a group's processes, beside which nothing passes through the hosts' memory.
#pragma once

#include <c10/core/Device.h>

#include <memory>

#include "trainers/distributed.h"

namespace c10d {
class Backend;
}

namespace qat {

// NCCL between CUDA devices, in a build with it (cmake/FindLibTorch.cmake); nothing for other devices and in other
// builds. All processes of the group call it, each with a device of its own. Throws Error that says what to do.
std::shared_ptr<c10d::Backend> connect_devices(ProcessGroup& group, at::Device device);

}  // namespace qat
