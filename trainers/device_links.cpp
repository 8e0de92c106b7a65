#include "trainers/device_links.h"

#ifdef QAT_HAS_NCCL
// The wheel's headers hide NCCL without this.
#define USE_C10D_NCCL

#include <cstdlib>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "core/error.h"
#include "trainers/library_reason.h"
#endif

namespace qat {

#ifdef QAT_HAS_NCCL

namespace {

constexpr std::chrono::minutes kTimeout{60};  // as between hosts: a process may wait for one that evaluates or saves

std::shared_ptr<c10d::Backend> connect_by_nccl(ProcessGroup& group, at::Device device) {
  // The group's own watch ends all processes with one message that names the dead one; NCCL's would abort this process.
  ::setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0", /*overwrite=*/0);
  group.any(false);  // all come at the same time, however long their preparations took
  try {
    const auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = kTimeout;
    auto nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(group.store("nccl"), static_cast<int>(group.rank()),
                                                            static_cast<int>(group.size()), options);
    nccl->eagerConnectSingleDevice(device);
    c10d::Backend* links = nccl.get();
    // A process that fails must not wait for sums that others never begin.
    return {links, [nccl = std::move(nccl)](c10d::Backend*) { nccl->abort(); }};
  } catch (const std::exception& error) {
    fail("rank ", group.rank(), ": NCCL cannot connect ", device.str(), " to the devices of the other processes (",
         reason_of(error), "). Check that each process has a GPU of its own (device = cuda, not cuda:0, under ",
         "torchrun), that all machines have the same PyTorch, and that NCCL_SOCKET_IFNAME names the network interface ",
         "that they share; NCCL_DEBUG=INFO makes NCCL tell more");
  }
}

}  // namespace

#endif

std::shared_ptr<c10d::Backend> connect_devices([[maybe_unused]] ProcessGroup& group,
                                               [[maybe_unused]] at::Device device) {
#ifdef QAT_HAS_NCCL
  if (device.is_cuda()) return connect_by_nccl(group, device);
#endif
  return nullptr;
}

}  // namespace qat
