// The largest magnitude among many values, at the speed of memory: exporters look for numbers that a scheme cannot
// hold.
#pragma once

#include <span>

#include "core/float_types.h"

namespace qat {

// 0 for no values; infinity if there is one, and NaN if there is one, whatever else there is.
float largest_magnitude(std::span<const float> values);
float largest_magnitude(std::span<const BFloat16> values);

}  // namespace qat
