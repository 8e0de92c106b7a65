#include "fake_quant/weight_fake_quantizer.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/error.h"
#include "fake_quant/straight_through.h"
#include "fake_quant/tensor_values.h"
#include "quant/block_codec.h"
#include "quant/quantized_digest.h"

namespace qat {

namespace {

constexpr int64_t kPiece = int64_t{1} << 16;  // values a thread converts at a time; a multiple of every block size

// The quantizer's input is the BF16-rounded master, whatever dtype the model computes in.
at::Tensor as_bfloat16(const at::Tensor& master) {
  QAT_CHECK(master.device().is_cpu());
  return master.detach().to(at::kBFloat16).contiguous();
}

template <class Value>
void fake_quantize_parallel(Scheme scheme_id, std::span<const BFloat16> master, std::span<const Float16> scales,
                            std::span<Value> values) {
  const auto block = static_cast<size_t>(scheme(scheme_id).block_size);
  const auto size = static_cast<int64_t>(master.size());
  at::parallel_for(0, (size + kPiece - 1) / kPiece, 1, [&](int64_t begin, int64_t end) {
    const auto first = static_cast<size_t>(begin * kPiece);
    const auto count = static_cast<size_t>(std::min(end * kPiece, size)) - first;
    const auto part_scales = scales.empty() ? scales : scales.subspan(first / block, count / block);
    fake_quantize_blocks(scheme_id, master.subspan(first, count), part_scales, values.subspan(first, count));
  });
}

at::Tensor fake_quantized(Scheme scheme_id, const at::Tensor& master, std::span<const Float16> scales) {
  const at::Tensor input = as_bfloat16(master);
  at::Tensor value = at::empty_like(master, at::MemoryFormat::Contiguous).detach();
  const auto bits = values_of<const BFloat16>(input);
  if (master.scalar_type() == at::kBFloat16) {
    fake_quantize_parallel(scheme_id, bits, scales, values_of<BFloat16>(value));
  } else {
    QAT_CHECK(master.scalar_type() == at::kFloat);
    fake_quantize_parallel(scheme_id, bits, scales, values_of<float>(value));
  }
  return value;
}

}  // namespace

WeightFakeQuantizer::WeightFakeQuantizer(std::string name, Scheme scheme_id, std::span<const Float16> stored_scales)
    : name_(std::move(name)), scheme_(scheme_id), stored_scales_(stored_scales) {
  QAT_CHECK(scheme(scheme_id).is_quantized());
}

at::Tensor WeightFakeQuantizer::apply(const at::Tensor& master) {
  if (!enabled_) return master;
  fired_ = true;
  if (!cached_.defined()) {
    const c10::NoGradGuard no_grad;
    cached_ = fake_quantized(scheme_, master, stored_scales_);
  }
  return straight_through(master, cached_);
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
  at::Tensor value;
  {
    const c10::NoGradGuard no_grad;
    value = fake_quantized(scheme_, gathered, gathered_scales);
  }
  return straight_through(gathered, value);
}

WeightDigest WeightFakeQuantizer::digest(const at::Tensor& master) const {
  const QuantScheme& row = scheme(scheme_);
  const auto block = static_cast<size_t>(row.block_size);
  QuantizedDigest digest(scheme_);
  const at::Tensor flat = master.detach().reshape({-1});
  std::vector<std::byte> blocks;
  for (int64_t first = 0; first < flat.numel(); first += 16 * kPiece) {
    const int64_t count = std::min<int64_t>(16 * kPiece, flat.numel() - first);
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
