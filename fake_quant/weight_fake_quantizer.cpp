#include "fake_quant/weight_fake_quantizer.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/error.h"
#include "fake_quant/block_fake_quantize.h"
#include "fake_quant/block_values.h"
#include "fake_quant/straight_through.h"
#include "fake_quant/tensor_values.h"
#include "quant/block_codec.h"
#include "quant/block_scales.h"
#include "quant/quantized_digest.h"

namespace qat {

namespace {

constexpr int64_t kPiece = int64_t{1} << 20;   // values whose blocks exist at a time; a multiple of every block size
constexpr double kStartOfZeroScale = 0x1p-14;  // the smallest normal fp16

at::Tensor rounded(const at::Tensor& scales) {
  at::Tensor result = at::empty(scales.sizes(), at::kHalf);
  round_block_scales(values_of<const float>(scales), values_of<Float16>(result));
  return result;
}

}  // namespace

WeightFakeQuantizer::WeightFakeQuantizer(std::string name, Scheme scheme_id, std::span<const Float16> stored_scales,
                                         at::Device device)
    : name_(std::move(name)), scheme_(scheme_id) {
  QAT_CHECK(scheme(scheme_id).is_quantized());
  if (stored_scales.empty()) return;
  const at::Tensor scales = at::empty({static_cast<int64_t>(stored_scales.size())}, at::kHalf);
  std::copy(stored_scales.begin(), stored_scales.end(), values_of<Float16>(scales).begin());
  scales_ = scales.to(device);
}

void WeightFakeQuantizer::search_scales() {
  QAT_CHECK(scheme_ == Scheme::Q4_0 && !scales_.defined());
  searches_ = true;
}

void WeightFakeQuantizer::learn_scales(const at::Tensor& start, bool given) {
  QAT_CHECK(scheme_ == Scheme::Q4_0 && !searches_);
  if (!learned_) learned_.emplace(name_, start.device());
  learned_->set_start(start.to(at::kFloat).masked_fill(start.eq(0), kStartOfZeroScale), given);
  changed();
}

void WeightFakeQuantizer::set_keep(Keep keep) {
  keep_ = keep;
  kept_ = at::Tensor();
}

void WeightFakeQuantizer::changed() {
  kept_ = at::Tensor();
  if (!learned_) return;
  learned_->changed();
  scales_ = rounded(learned_->values());
}

at::Tensor WeightFakeQuantizer::scales_of(const at::Tensor& part, int64_t first_block) const {
  if (searches_) return searched_block_scales(part);
  if (!scales_.defined()) return {};
  return scales_.narrow(0, first_block, part.numel() / scheme(scheme_).block_size);
}

at::Tensor WeightFakeQuantizer::apply(const at::Tensor& master) {
  if (!enabled_) return master;
  fired_ = true;
  const at::Tensor value = forward_value(master);
  return learned_ ? block_fake_quantize(master, learned_->log_change(), scales_, value)
                  : straight_through(master, value);
}

at::Tensor WeightFakeQuantizer::forward_value(const at::Tensor& master) {
  switch (keep_) {
    case Keep::Values:
      if (!kept_.defined()) kept_ = block_values(scheme_, master, scales_of(master, 0));
      return kept_;
    case Keep::Codes:
      return values_of_blocks(scheme_, codes_of(master), master);
    case Keep::Nothing:
      return block_values(scheme_, master, scales_of(master, 0));
  }
  QAT_CHECK(false);
  return {};
}

const at::Tensor& WeightFakeQuantizer::codes_of(const at::Tensor& master) {
  QAT_CHECK(keep_ == Keep::Codes);
  if (!kept_.defined()) kept_ = encoded_blocks(scheme_, master, scales_of(master, 0));
  return kept_;
}

at::Tensor WeightFakeQuantizer::apply_rows(const at::Tensor& values, const at::Tensor& rows) {
  if (!enabled_) return values;
  fired_ = true;
  const auto gather = [&](const at::Tensor& of_blocks) {
    const int64_t blocks_of_row = values.size(-1) / scheme(scheme_).block_size;
    return at::index_select(of_blocks.view({-1, blocks_of_row}), 0, rows).reshape({-1});
  };
  const at::Tensor scales = scales_.defined() ? gather(scales_) : scales_of(values, 0);
  const at::Tensor value = block_values(scheme_, values, scales);
  return learned_ ? block_fake_quantize(values, gather(learned_->log_change()), scales, value)
                  : straight_through(values, value);
}

WeightDigest WeightFakeQuantizer::digest(const at::Tensor& master) const {
  const QuantScheme& row = scheme(scheme_);
  QuantizedDigest digest(scheme_);
  const at::Tensor flat = master.detach().reshape({-1});
  for (int64_t first = 0; first < flat.numel(); first += kPiece) {
    const at::Tensor part = flat.narrow(0, first, std::min(kPiece, flat.numel() - first));
    const at::Tensor scales = scales_of(part, first / row.block_size);
    const at::Tensor blocks = encoded_blocks(scheme_, on_cpu(part), on_cpu(scales));
    digest.update(values_of<const std::byte>(blocks));
  }
  const auto result = digest.finish();
  return {result.codes, result.scales, {}};
}

WeightSample WeightFakeQuantizer::sample(const at::Tensor& master) const {
  const c10::NoGradGuard no_grad;
  const QuantScheme& rule = scheme(scheme_);
  const at::Tensor blocks = master.detach().reshape({-1, rule.block_size});
  const at::Tensor places = sampled_groups(blocks.size(0), rule.block_size).to(blocks.device());
  const at::Tensor chosen = as_bfloat16(on_cpu(at::index_select(blocks, 0, places)));
  const at::Tensor scales = scales_.defined() ? on_cpu(at::index_select(scales_, 0, places)) : scales_of(chosen, 0);
  const at::Tensor bytes = encoded_blocks(scheme_, chosen, scales);
  const auto encoded = values_of<const std::byte>(bytes);
  std::vector<float> quantized(static_cast<size_t>(chosen.numel()));
  decode_blocks(scheme_, encoded, quantized);
  WeightSample result;
  result.codes.resize(quantized.size());
  unpack_codes(scheme_, encoded, result.codes);
  const at::Tensor values = chosen.to(at::kFloat);
  result.statistics.add(values_of<const float>(values), quantized, result.codes, rule.code_min, rule.code_max);
  return result;
}

}  // namespace qat
