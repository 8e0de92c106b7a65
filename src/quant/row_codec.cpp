#include "quant/row_codec.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "quant/grid.h"
#include "quant/magnitude.h"
#include "quant/row_kernels.h"

namespace qat {

namespace {

constexpr float kSmallestScale = std::numeric_limits<float>::min();  // subnormal scales are refused by LiteRT

kernels::IntegerGrid grid_of(Scheme id, float scale) {
  const QuantScheme& row = scheme(id);
  QAT_CHECK(row.has_row_scales());
  return {scale, grid::inverse_scale(scale), static_cast<float>(row.code_min), static_cast<float>(row.code_max)};
}

void check_sizes(size_t values, size_t scales, int64_t width, size_t results) {
  QAT_CHECK(width > 0 && values == scales * static_cast<size_t>(width) && results == values);
}

template <class Value>
void encode_all(Scheme id, std::span<const Value> values, std::span<const float> scales, int64_t width,
                std::span<int8_t> codes) {
  check_sizes(values.size(), scales.size(), width, codes.size());
  const auto count = static_cast<size_t>(width);
  for (size_t group = 0; group < scales.size(); ++group) {
    kernels::encode_integers(values.data() + group * count, count, grid_of(id, scales[group]),
                             codes.data() + group * count);
  }
}

void store(float value, float& target) { target = value; }
void store(float value, BFloat16& target) { target = to_bfloat16(value); }

template <class Value>
void decode_all(std::span<const int8_t> codes, std::span<const float> scales, int64_t width, std::span<Value> values) {
  check_sizes(codes.size(), scales.size(), width, values.size());
  size_t i = 0;
  for (const float scale : scales) {
    for (const size_t end = i + static_cast<size_t>(width); i < end; ++i) {
      store(grid::integer_value(codes[i], scale), values[i]);
    }
  }
}

}  // namespace

void encode_groups(Scheme id, std::span<const BFloat16> values, std::span<const float> scales, int64_t width,
                   std::span<int8_t> codes) {
  encode_all(id, values, scales, width, codes);
}

void encode_groups(Scheme id, std::span<const float> values, std::span<const float> scales, int64_t width,
                   std::span<int8_t> codes) {
  encode_all(id, values, scales, width, codes);
}

void decode_groups(std::span<const int8_t> codes, std::span<const float> scales, int64_t width,
                   std::span<float> values) {
  decode_all(codes, scales, width, values);
}

void decode_groups(std::span<const int8_t> codes, std::span<const float> scales, int64_t width,
                   std::span<BFloat16> values) {
  decode_all(codes, scales, width, values);
}

bool groups_share_scales(std::span<const float> scales, int64_t groups) {
  const auto run = static_cast<size_t>(groups);
  for (size_t i = 0; i < scales.size(); ++i) {
    if (scales[i] != scales[i / run * run]) return false;
  }
  return groups > 1;
}

void fake_quantize_group(Scheme id, std::span<const float> values, float scale, std::span<float> results) {
  QAT_CHECK(values.size() == results.size());
  kernels::fake_quantize_integers(values.data(), values.size(), grid_of(id, scale), results.data());
}

void fake_quantize_group(Scheme id, std::span<const BFloat16> values, float scale, std::span<BFloat16> results) {
  QAT_CHECK(values.size() == results.size());
  kernels::fake_quantize_integers(values.data(), values.size(), grid_of(id, scale), results.data());
}

double scale_gradient(Scheme id, std::span<const float> values, std::span<const float> gradient, float scale,
                      std::span<float> masked) {
  QAT_CHECK(values.size() == gradient.size() && values.size() == masked.size());
  return kernels::scale_gradient(values.data(), gradient.data(), values.size(), grid_of(id, scale), masked.data());
}

double scale_gradient(Scheme id, std::span<const BFloat16> values, std::span<const BFloat16> gradient, float scale,
                      std::span<BFloat16> masked) {
  QAT_CHECK(values.size() == gradient.size() && values.size() == masked.size());
  return kernels::scale_gradient(values.data(), gradient.data(), values.size(), grid_of(id, scale), masked.data());
}

float absolute_max_scale(Scheme id, std::span<const float> group) {
  const float magnitude = largest_magnitude(group);
  if (magnitude == 0) return 1;
  return std::max(magnitude / static_cast<float>(scheme(id).code_max), kSmallestScale);
}

double squared_error(Scheme id, std::span<const float> values, float scale) {
  return kernels::squared_error(values.data(), values.size(), grid_of(id, scale));
}

float searched_scale(Scheme id, std::span<const float> group) {
  // At 8 bits a coarse step clips the largest values by whole codes, which costs percents.
  const int candidates = id == Scheme::Int8 ? 72 : 24;
  constexpr int kRefinements = 4;
  const float largest = absolute_max_scale(id, group);
  if (largest_magnitude(group) == 0) return largest;
  // From clipping nothing down to where even a heavy-tailed row loses more by clipping than by rounding.
  const double smallest_share = id == Scheme::Int2 ? 0.08 : id == Scheme::Int4 ? 0.25 : 0.7;
  float best = largest;
  double best_error = squared_error(id, group, best);
  const auto consider = [&](float candidate) {
    if (!(candidate >= kSmallestScale) || !std::isfinite(candidate)) return;
    const double error = squared_error(id, group, candidate);
    if (error < best_error) {
      best_error = error;
      best = candidate;
    }
  };
  for (int i = 1; i <= candidates; ++i) {
    consider(static_cast<float>(static_cast<double>(largest) *
                                std::pow(smallest_share, static_cast<double>(i) / candidates)));
  }
  for (int i = 0; i < kRefinements; ++i) {
    const auto products = kernels::code_products(group.data(), group.size(), grid_of(id, best));
    if (products.code_code == 0) break;
    const auto fitted = static_cast<float>(products.code_value / products.code_code);
    if (fitted == best) break;
    consider(fitted);
  }
  return best;
}

}  // namespace qat
