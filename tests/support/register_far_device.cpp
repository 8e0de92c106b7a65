// Linked into a program, gives it the far device from the start.
#include "support/far_device.h"

namespace {

[[maybe_unused]] const at::Device kRegistered = qat::testing::far_device();

}  // namespace
