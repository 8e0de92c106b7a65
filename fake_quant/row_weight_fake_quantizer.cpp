#include "fake_quant/row_weight_fake_quantizer.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "fake_quant/integer_codes.h"
#include "fake_quant/integer_fake_quantize.h"
#include "fake_quant/tensor_values.h"
#include "quant/quantized_digest.h"
#include "quant/row_codec.h"

namespace qat {

namespace {

constexpr int64_t kPieceValues = int64_t{1} << 20;

// Calls run(first group, values) for consecutive groups of a master, widened to fp32.
void for_groups(const at::Tensor& master, int64_t width,
                const std::function<void(int64_t, std::span<const float>)>& run) {
  const c10::NoGradGuard no_grad;
  const at::Tensor flat = master.detach().reshape({-1, width});
  const int64_t groups_per_piece = std::max<int64_t>(1, kPieceValues / width);
  for (int64_t first = 0; first < flat.size(0); first += groups_per_piece) {
    const int64_t count = std::min(groups_per_piece, flat.size(0) - first);
    const at::Tensor piece = flat.narrow(0, first, count).to(at::kCPU, at::kFloat).contiguous();
    run(first, values_of<const float>(piece));
  }
}

}  // namespace

RowWeightFakeQuantizer::RowWeightFakeQuantizer(const WeightSpec& weight, Scheme scheme_id, bool one_scale_per_row,
                                               at::Device device)
    : scheme_(scheme_id),
      width_(one_scale_per_row ? weight.columns() : weight.scale_width),
      slices_(width_ / weight.scale_width),
      scales_per_row_(weight.columns() / width_),
      scale_(weight.name, device) {
  QAT_CHECK(scheme(scheme_id).has_row_scales());
}

at::Tensor RowWeightFakeQuantizer::stored_scales() const {
  const c10::NoGradGuard no_grad;
  const at::Tensor& scales = scale_.values();
  return slices_ == 1 ? scales : scales.unsqueeze(1).expand({-1, slices_}).contiguous().view({-1});
}

void RowWeightFakeQuantizer::give_scales(std::span<const float> scales) {
  const at::Tensor stored =
      at::tensor(at::ArrayRef<float>(scales.data(), scales.size()), at::kFloat).view({-1, slices_});
  scale_.set_start(stored.select(1, 0).contiguous(), /*given=*/true);
  if (!on_cpu(stored_scales()).equal(stored.view({-1}))) {
    fail(name(),
         ": the plan wants one scale per row (scale_per: row), but the model brings different ones for the slices of a "
         "row; use scale_per: slice");
  }
  changed();
}

void RowWeightFakeQuantizer::find_scales(const at::Tensor& master, RowScaleMethod method) {
  at::Tensor scales = at::empty({master.numel() / width_}, at::kFloat);
  auto* found = scales.mutable_data_ptr<float>();
  const auto width = static_cast<size_t>(width_);
  for_groups(master, width_, [&](int64_t first, std::span<const float> values) {
    at::parallel_for(0, static_cast<int64_t>(values.size() / width), 1, [&](int64_t begin, int64_t end) {
      for (int64_t group = begin; group < end; ++group) {
        const auto row = values.subspan(static_cast<size_t>(group) * width, width);
        found[first + group] =
            method == RowScaleMethod::Searched ? searched_scale(scheme_, row) : absolute_max_scale(scheme_, row);
      }
    });
  });
  scale_.set_start(scales, /*given=*/false);
  changed();
}

at::Tensor RowWeightFakeQuantizer::apply(const at::Tensor& master) {
  if (!enabled_) return master;
  fired_ = true;
  return integer_fake_quantize(scheme_, master, scale_.log_change(), scale_.values(), width_, forward_value(master));
}

at::Tensor RowWeightFakeQuantizer::forward_value(const at::Tensor& master) {
  switch (keep_) {
    case Keep::Values:
      if (!kept_.defined()) kept_ = integer_values(scheme_, master, scale_.values(), width_);
      return kept_;
    case Keep::Codes:
      if (!kept_.defined()) kept_ = packed_integer_codes(scheme_, master, scale_.values(), width_);
      return values_of_integer_codes(scheme_, kept_, scale_.values(), width_, master);
    case Keep::Nothing:
      return integer_values(scheme_, master, scale_.values(), width_);
  }
  QAT_CHECK(false);
  return {};
}

at::Tensor RowWeightFakeQuantizer::apply_rows(const at::Tensor& values, const at::Tensor& rows) {
  if (!enabled_) return values;
  fired_ = true;
  const auto gather = [&](const at::Tensor& scales) {
    return at::index_select(scales.view({-1, scales_per_row_}), 0, rows).reshape({-1});
  };
  const at::Tensor scales = gather(scale_.values());
  const at::Tensor value = integer_values(scheme_, values, scales, width_);
  return integer_fake_quantize(scheme_, values, gather(scale_.log_change()), scales, width_, value);
}

void RowWeightFakeQuantizer::changed() {
  kept_ = at::Tensor();
  scale_.changed();
}

WeightDigest RowWeightFakeQuantizer::digest(const at::Tensor& master) const {
  const at::Tensor stored = on_cpu(stored_scales());
  const auto scales = values_of<const float>(stored);
  const int64_t width = width_ / slices_;
  RowDigest digest;
  std::vector<int8_t> codes;
  for_groups(master, width, [&](int64_t first, std::span<const float> values) {
    const auto part = scales.subspan(static_cast<size_t>(first), values.size() / static_cast<size_t>(width));
    codes.resize(values.size());
    encode_groups(scheme_, values, part, width, codes);
    digest.update(codes, part);
  });
  const auto result = digest.finish();
  return {result.codes, result.scales, {}};
}

WeightSample RowWeightFakeQuantizer::sample(const at::Tensor& master) const {
  const c10::NoGradGuard no_grad;
  const QuantScheme& rule = scheme(scheme_);
  // Parts of groups do, since a group's scale does not follow from its values.
  const int64_t width = std::gcd(width_, int64_t{32});
  const at::Tensor parts = master.detach().reshape({-1, width});
  const at::Tensor places = sampled_groups(parts.size(0), width);
  const at::Tensor chosen = at::index_select(parts, 0, places.to(parts.device())).to(at::kCPU, at::kFloat).contiguous();
  const auto values = values_of<const float>(chosen);
  const at::Tensor all_scales = on_cpu(scale_.values());
  const auto scales = values_of<const float>(all_scales);
  WeightSample result;
  result.codes.resize(values.size());
  std::vector<float> quantized(static_cast<size_t>(width));
  size_t first = 0;
  for (const int64_t place : values_of<const int64_t>(places)) {
    const auto scale = scales.subspan(static_cast<size_t>(place * width / width_), 1);
    const auto part = values.subspan(first, quantized.size());
    const auto codes = std::span(result.codes).subspan(first, quantized.size());
    encode_groups(scheme_, part, scale, width, codes);
    decode_groups(codes, scale, width, quantized);
    result.statistics.add(part, quantized, codes, rule.code_min, rule.code_max);
    first += quantized.size();
  }
  return result;
}

}  // namespace qat
