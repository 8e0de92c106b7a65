// The inner loops of fp32 matrix products over tiles of decoded weights, for whatever vectors the processor has (Eigen
// settles on an instruction set when it is compiled).
#pragma once

#include <cstdint>
#include <span>

namespace qat {

// Rounds every value to BF16 (to_bfloat16 of core/float_types.h).
void round_to_bfloat16(std::span<float> values);

// outputs[token * output_stride + row] = the inner product of token `token` of x [tokens, columns] and row `row` of
// weights [rows, columns]. The order of summation depends on the processor's vector length, not on the numbers of
// tokens and rows.
void multiply_tile(const float* x, int64_t tokens, const float* weights, int64_t rows, int64_t columns, float* outputs,
                   int64_t output_stride);

}  // namespace qat
