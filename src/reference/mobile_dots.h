// The inner loops of integer matrix products over tiles of unpacked weights.
#pragma once

#include <cstdint>

namespace qat::mobile {

// sums[token * stride + row] = the inner product of token `token` of x [tokens, columns] and row `row` of weights
// [rows, columns]. Exact as long as the true sums fit 32 bits and no two neighbouring products overflow them.
void multiply_codes(const int16_t* x, int64_t tokens, const int16_t* weights, int64_t rows, int64_t columns,
                    int32_t* sums, int64_t stride);

}  // namespace qat::mobile
