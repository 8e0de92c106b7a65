#include "reference/weight_view.h"

#include "core/error.h"
#include "quant/block_codec.h"
#include "quant/row_codec.h"

namespace qat {

void decode_rows(const WeightView& weight, int64_t first, int64_t count, std::span<float> values) {
  QAT_CHECK(static_cast<int64_t>(values.size()) == count * weight.columns());
  if (!weight.scheme->has_row_scales()) {
    decode_blocks(weight.scheme->id, weight.row_blocks(first, count), values);
    return;
  }
  std::vector<int8_t> codes(values.size());
  unpack_codes(weight.scheme->id, weight.code_bytes, weight.row_blocks(first, count), codes);
  const int64_t per_row = weight.columns() / weight.scale_width;
  const auto scales = weight.scales.subspan(static_cast<size_t>(first * per_row), static_cast<size_t>(count * per_row));
  decode_groups(codes, scales, weight.scale_width, values);
}

}  // namespace qat
