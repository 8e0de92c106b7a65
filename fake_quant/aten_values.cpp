#include "fake_quant/aten_values.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/fmax.h>
#include <ATen/ops/fmin.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/round.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <cmath>

#include "core/error.h"
#include "quant/grid.h"

namespace qat {

namespace {

// On the device of `like`: CUDA divides by a number of the host as by its reciprocal.
at::Tensor scalar_like(const at::Tensor& like, double value) { return at::full({}, value, like.options()); }

// grid::inverse_scale.
at::Tensor inverse_of(const at::Tensor& scales) {
  return at::where(scales.ne(0), scalar_like(scales, 1) / scales, at::zeros_like(scales));
}

// A code of -0 is 0.
at::Tensor as_codes(const at::Tensor& rounded) { return rounded + 0.0; }

at::Tensor through_half(const at::Tensor& scales) { return scales.to(at::kHalf).to(at::kFloat); }

// grid::q4_0_scale: blocks [n, 32] -> [n, 1].
at::Tensor q4_0_scales(const at::Tensor& blocks) {
  const at::Tensor magnitudes = blocks.abs();
  const at::Tensor largest = magnitudes.amax(1, /*keepdim=*/true);
  // The first of equal magnitudes: the smallest position among them.
  const at::Tensor positions = at::arange(blocks.size(1), blocks.options().dtype(at::kLong)).expand_as(blocks);
  const at::Tensor first =
      at::where(magnitudes.eq(largest), positions, at::full({}, blocks.size(1), positions.options())).amin(1, true);
  const at::Tensor extremum = blocks.gather(1, first);
  return at::where(largest.eq(0), at::zeros_like(largest), extremum) / scalar_like(largest, -8);
}

at::Tensor q4_0_values(const at::Tensor& blocks, const at::Tensor& scales) {
  const at::Tensor stored = scales.defined() ? scales.view({-1, 1}).to(at::kFloat) : at::Tensor();
  const at::Tensor rule = stored.defined() ? stored : q4_0_scales(blocks);
  const at::Tensor inverse = inverse_of(rule);
  const at::Tensor shifted = (blocks * inverse) + 8.5;
  const at::Tensor clamped = at::fmin(at::fmax(shifted, scalar_like(shifted, 0)), scalar_like(shifted, 15));
  const at::Tensor codes = at::where(at::isfinite(inverse), clamped.trunc(), at::zeros_like(clamped));
  return (stored.defined() ? stored : through_half(rule)) * (codes - 8);
}

at::Tensor q8_0_values(const at::Tensor& blocks) {
  const at::Tensor largest = blocks.abs().amax(1, /*keepdim=*/true);
  const at::Tensor scales = largest / scalar_like(largest, 127);
  const at::Tensor inverse = inverse_of(scales);
  const at::Tensor scaled = blocks * inverse;
  // Halves go away from zero. The distance to the truncated value is exact.
  const at::Tensor whole = scaled.trunc();
  const at::Tensor rounded = whole + (scaled - whole).abs().ge(0.5).to(at::kFloat) * scaled.sign();
  const at::Tensor codes = at::where(at::isfinite(inverse), as_codes(rounded), at::zeros_like(rounded));
  return through_half(scales) * codes;
}

// Groups [n, width] with what their codes are made of.
struct IntegerGroups {
  at::Tensor scaled;   // input times the inverse scale
  at::Tensor clamped;  // within the codes
};

IntegerGroups integer_groups(const QuantScheme& rule, const at::Tensor& input, const at::Tensor& scales,
                             int64_t width) {
  const at::Tensor scaled = input.detach().to(at::kFloat).reshape({-1, width}) * inverse_of(scales).view({-1, 1});
  const at::Tensor clamped =
      at::fmax(at::fmin(scaled, scalar_like(scaled, rule.code_max)), scalar_like(scaled, rule.code_min));
  return {scaled, clamped};
}

// rotate_hadamard() of values [n, size].
at::Tensor rotated(const at::Tensor& values, int64_t size) {
  at::Tensor result = values * (1.0f / std::sqrt(static_cast<float>(size)));
  for (int64_t half = 1; half < size; half *= 2) {
    const at::Tensor pairs = result.view({-1, 2, half});
    const at::Tensor left = pairs.select(1, 0), right = pairs.select(1, 1);
    result = at::stack({left + right, left - right}, 1).view({-1, size});
  }
  return result;
}

}  // namespace

at::Tensor block_values_in_aten(Scheme id, const at::Tensor& master, const at::Tensor& scales) {
  const c10::NoGradGuard no_grad;
  QAT_CHECK(id == Scheme::Q4_0 || id == Scheme::Q8_0);
  const at::Tensor blocks = master.detach().to(at::kBFloat16).to(at::kFloat).reshape({-1, grid::kBlock});
  const at::Tensor values = id == Scheme::Q4_0 ? q4_0_values(blocks, scales) : q8_0_values(blocks);
  return values.to(at::kBFloat16).to(master.scalar_type()).view(master.sizes());
}

at::Tensor integer_values_in_aten(Scheme id, const at::Tensor& input, const at::Tensor& scales, int64_t width) {
  const c10::NoGradGuard no_grad;
  const IntegerGroups groups = integer_groups(scheme(id), input, scales, width);
  const at::Tensor values = as_codes(at::round(groups.clamped)) * scales.view({-1, 1});
  return values.to(input.scalar_type()).view(input.sizes());
}

IntegerGradients integer_gradients_in_aten(Scheme id, const at::Tensor& input, const at::Tensor& gradient,
                                           const at::Tensor& scales, int64_t width) {
  const c10::NoGradGuard no_grad;
  const QuantScheme& rule = scheme(id);
  const IntegerGroups groups = integer_groups(rule, input, scales, width);
  const at::Tensor inside = groups.scaled.ge(rule.code_min).logical_and_(groups.scaled.le(rule.code_max));
  const at::Tensor slope = at::where(inside, at::round(groups.scaled) - groups.scaled, groups.clamped);
  const at::Tensor incoming = gradient.reshape({-1, width});
  const at::Tensor masked = at::where(inside, incoming, at::zeros_like(incoming)).to(input.scalar_type());
  return {masked.view(input.sizes()), (incoming.to(at::kDouble) * slope.to(at::kDouble)).sum(1)};
}

at::Tensor key_values_in_aten(const at::Tensor& activation, int64_t rotation) {
  const c10::NoGradGuard no_grad;
  at::Tensor values = activation.detach().to(at::kFloat).contiguous();
  if (rotation > 0) values = rotated(values.view({-1, rotation}), rotation);
  const at::Tensor blocks = values.reshape({-1, grid::kBlock});
  const at::Tensor largest = blocks.abs().amax(1, /*keepdim=*/true);
  // The runtime rule: 127 over the largest magnitude, halves to even.
  const at::Tensor inverse = at::where(largest.ne(0), scalar_like(largest, 127) / largest, at::zeros_like(largest));
  const at::Tensor rounded = as_codes(at::round(blocks * inverse));
  const at::Tensor codes = at::where(at::isfinite(inverse), rounded, at::zeros_like(rounded));
  values = through_half(largest / scalar_like(largest, 127)) * codes;
  if (rotation > 0) values = rotated(values.reshape({-1, rotation}), rotation);
  return values.reshape(activation.sizes()).to(activation.scalar_type());
}

}  // namespace qat
