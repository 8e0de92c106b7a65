#include "fake_quant/weight_fake_quantizer.h"

#include <ATen/ops/index_select.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/error.h"
#include "fake_quant/block_values.h"
#include "fake_quant/straight_through.h"
#include "fake_quant/tensor_values.h"
#include "quant/block_codec.h"
#include "quant/quantized_digest.h"

namespace qat {

namespace {

constexpr int64_t kPiece = int64_t{1} << 20;  // values whose blocks exist at a time; a multiple of every block size

}  // namespace

WeightFakeQuantizer::WeightFakeQuantizer(std::string name, Scheme scheme_id, std::span<const Float16> stored_scales)
    : name_(std::move(name)), scheme_(scheme_id), stored_scales_(stored_scales) {
  QAT_CHECK(scheme(scheme_id).is_quantized());
}

at::Tensor WeightFakeQuantizer::apply(const at::Tensor& master) {
  if (!enabled_) return master;
  fired_ = true;
  return straight_through(master, forward_value(master));
}

at::Tensor WeightFakeQuantizer::forward_value(const at::Tensor& master) {
  switch (keep_) {
    case Keep::Values:
      if (!kept_.defined()) kept_ = block_values(scheme_, master, stored_scales_);
      return kept_;
    case Keep::Codes:
      if (!kept_.defined()) kept_ = encoded_blocks(scheme_, master, stored_scales_);
      return values_of_blocks(scheme_, kept_, master);
    case Keep::Nothing:
      return block_values(scheme_, master, stored_scales_);
  }
  QAT_CHECK(false);
  return {};
}

at::Tensor WeightFakeQuantizer::apply_rows(const at::Tensor& master, const at::Tensor& rows) {
  const at::Tensor gathered = at::index_select(master, 0, rows);
  if (!enabled_) return gathered;
  fired_ = true;
  std::vector<Float16> gathered_scales;
  if (!stored_scales_.empty()) {
    const auto per_row = static_cast<size_t>(master.size(-1) / scheme(scheme_).block_size);
    for (const int64_t row : values_of<const int64_t>(rows.contiguous())) {
      const auto scales = stored_scales_.subspan(static_cast<size_t>(row) * per_row, per_row);
      gathered_scales.insert(gathered_scales.end(), scales.begin(), scales.end());
    }
  }
  return straight_through(gathered, block_values(scheme_, gathered, gathered_scales));
}

WeightDigest WeightFakeQuantizer::digest(const at::Tensor& master) const {
  const QuantScheme& row = scheme(scheme_);
  const auto block = static_cast<size_t>(row.block_size);
  QuantizedDigest digest(scheme_);
  const at::Tensor flat = master.detach().reshape({-1});
  std::vector<std::byte> blocks;
  for (int64_t first = 0; first < flat.numel(); first += kPiece) {
    const int64_t count = std::min(kPiece, flat.numel() - first);
    const at::Tensor part = as_bfloat16(flat.narrow(0, first, count));
    const auto values = values_of<const BFloat16>(part);
    const auto scales = stored_scales_.empty() ? stored_scales_
                                               : stored_scales_.subspan(static_cast<size_t>(first) / block,
                                                                        static_cast<size_t>(count) / block);
    blocks.resize(static_cast<size_t>(row.row_bytes(count)));
    encode_blocks(scheme_, values, scales, blocks);
    digest.update(blocks);
  }
  const auto result = digest.finish();
  return {result.codes, result.scales, {}};
}

}  // namespace qat
