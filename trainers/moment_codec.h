// An optimizer's moments in 8 bits. Blocks of 256 values share an fp32 scale, their largest magnitude; a code stands
// for a magnitude of 2^(-n/10) of it, so that every value has the same relative precision (7 %) however small it is:
//   first moments   codes -127..127, magnitudes down to 2^-12.6 of the largest, and 0;
//   second moments  codes 0..255, down to 2^-25.4 (the square: both reach equally far down), and 0.
// Values between two magnitudes are rounded up or down at random: moments that change by less than a code per step, as
// slow averages do, still change on average. A second moment above 0 never becomes 0, since updates divide by it.
// This is the optimizer's own format, not a quantization grid of the model.
#pragma once

#include <cstdint>
#include <span>

#include "trainers/stochastic_rounding.h"

namespace qat {

inline constexpr int64_t kMomentBlock = 256;

// Of one block (at most kMomentBlock values): fills `codes` and returns the scale. `first_element`: place of values[0]
// in its weight.
float encode_first_moments(std::span<const float> values, const ElementRandom& random, int64_t first_element,
                           std::span<int8_t> codes);
float encode_second_moments(std::span<const float> values, const ElementRandom& random, int64_t first_element,
                            std::span<uint8_t> codes);

void decode_first_moments(std::span<const int8_t> codes, float scale, std::span<float> values);
void decode_second_moments(std::span<const uint8_t> codes, float scale, std::span<float> values);

}  // namespace qat
