#include "reference/weight_view.h"

#include "core/error.h"
#include "quant/block_codec.h"
#include "quant/grid.h"

namespace qat {

void decode_rows(const WeightView& weight, int64_t first, int64_t count, std::span<float> values) {
  QAT_CHECK(static_cast<int64_t>(values.size()) == count * weight.columns());
  if (!weight.scheme->has_row_scales()) {
    decode_blocks(weight.scheme->id, weight.row_blocks(first, count), values);
    return;
  }
  std::vector<int8_t> codes(values.size());
  unpack_codes(weight.scheme->id, weight.code_bytes, weight.row_blocks(first, count), codes);
  const auto width = static_cast<size_t>(weight.scale_width);
  const float* scale = weight.scales.data() + static_cast<size_t>(first * weight.columns()) / width;
  for (size_t start = 0; start < values.size(); start += width, ++scale) {
    for (size_t i = start; i < start + width; ++i) values[i] = grid::integer_value(codes[i], *scale);
  }
}

}  // namespace qat
