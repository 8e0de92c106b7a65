// Tiles of weight rows unpacked for the integer kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "reference/weight_view.h"

namespace qat {

inline constexpr int64_t kInterleavedRows = 8;

// Eight Q4_0 rows side by side: codes [block][pair of columns][row][2], scales [block][row].
struct InterleavedTile {
  int64_t blocks = 0;
  std::vector<int16_t> codes;
  std::vector<float> scales;
};
void unpack_interleaved(const WeightView& weight, int64_t first_row, InterleavedTile& tile);

// One row of Q4_0 or Q8_0, codes in quad order.
struct CodeRow {
  int64_t blocks = 0;
  std::vector<int16_t> codes;
  std::vector<float> scales;
};
void unpack_codes(const WeightView& weight, int64_t row, CodeRow& unpacked);

// One row of Q6_K: codes 0..63 in quad order, and per block of 256 sixteen sub-scales and the scale.
struct SuperBlockRow {
  int64_t blocks = 0;
  std::vector<int16_t> codes;
  std::vector<int32_t> sub_scales;
  std::vector<float> scales;
};
void unpack_super_blocks(const WeightView& weight, int64_t row, SuperBlockRow& unpacked);

}  // namespace qat
