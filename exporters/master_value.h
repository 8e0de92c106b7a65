// Values of a checkpoint's masters one by one, read by a rule of its own that shares nothing with the exporters.
#pragma once

#include <cstdint>

#include "io/tensor_source.h"

namespace qat {

// Of a BF16, F16 or F32 tensor, widened.
float master_value(const TensorView& tensor, int64_t index);

}  // namespace qat
