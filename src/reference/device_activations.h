// Activations in the forms that llama.cpp's integer kernels read.
#pragma once

#include <cstdint>
#include <vector>

#include "reference/matrix.h"

namespace qat {

// Order of the 32 codes of a block. The kernels multiply neighbours in pairs: natural order puts pair i at 2i, 2i+1;
// quad order puts the first pair of each four into the first half of the block and the second pair into the other, so
// that two multiplications give the eight sums of four that llama.cpp's vec_dot kernels keep apart.
enum class CodeOrder { Natural, Quads };

// Place of value i (0..31) of a block in this order.
constexpr int64_t code_place(CodeOrder order, int64_t i) {
  return order == CodeOrder::Natural ? i : i % 4 / 2 * 16 + i / 4 * 2 + i % 2;
}

// Rows of codes and of block scales.
struct QuantizedRows {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t block = 0;           // values under one scale
  std::vector<int16_t> codes;  // [rows, columns]
  std::vector<float> scales;   // [rows, columns / block]
  std::vector<int32_t> sums;   // Q8_K: [rows, columns / 16], sums of 16 codes in natural order

  const int16_t* row_codes(int64_t row) const { return codes.data() + row * columns; }
  const float* row_scales(int64_t row) const { return scales.data() + row * (columns / block); }
  const int32_t* row_sums(int64_t row) const { return sums.data() + row * (columns / 16); }
};

// Blocks of 32 with an fp16 scale, by the rule of x86 kernels (grid.h q8_0_runtime_*).
QuantizedRows quantize_q8_0(const Eigen::Ref<const Matrix>& x, CodeOrder order);
// Blocks of 256 with an fp32 scale, codes in quad order.
QuantizedRows quantize_q8_k(const Eigen::Ref<const Matrix>& x);

}  // namespace qat
