// In place of trainers/device_links.cpp in programs of tests: all-reduce over Gloo on the CPU, so that what is done
// with NCCL between GPUs runs without any.
#define USE_C10D_GLOO

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "trainers/device_links.h"

namespace qat {

std::shared_ptr<c10d::Backend> connect_devices(ProcessGroup& group, at::Device /*device*/) {
  const auto options = c10d::ProcessGroupGloo::Options::create(std::chrono::minutes(1));
  options->devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
  auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(group.store("gloo"), static_cast<int>(group.rank()),
                                                          static_cast<int>(group.size()), options);
  c10d::Backend* links = gloo.get();
  return {links, [gloo = std::move(gloo)](c10d::Backend*) {}};
}

}  // namespace qat
