#include "reference/device_dots.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reference/device_dots.cpp"
#include <hwy/foreach_target.h>
// foreach_target must come first.
#include <hwy/highway.h>

#include "quant/grid.h"

HWY_BEFORE_NAMESPACE();
namespace qat::device::HWY_NAMESPACE {

#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR && HWY_MAX_BYTES >= 32

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::FixedTag<float, 8>;
using Integers = hn::FixedTag<int32_t, 8>;
using Shorts = hn::FixedTag<int16_t, 16>;
using FloatVector = hn::Vec<Floats>;
using IntegerVector = hn::Vec<Integers>;

// Sums of products of neighbouring pairs.
HWY_INLINE IntegerVector pair_dot(const int16_t* a, hn::Vec<Shorts> b, IntegerVector sum) {
  IntegerVector unused = hn::Zero(Integers());
  return hn::ReorderWidenMulAccumulate(Integers(), hn::LoadU(Shorts(), a), b, sum, unused);
}

// The eight quad sums of a block in quad order.
HWY_INLINE IntegerVector quad_dots(const int16_t* a, const int16_t* b) {
  const Shorts tag;
  return pair_dot(a, hn::LoadU(tag, b), pair_dot(a + 16, hn::LoadU(tag, b + 16), hn::Zero(Integers())));
}

HWY_INLINE float add_halves_first(FloatVector lanes) {
  float l[8];
  hn::StoreU(lanes, Floats(), l);
  return ((l[4] + l[0]) + (l[6] + l[2])) + ((l[5] + l[1]) + (l[7] + l[3]));
}

HWY_INLINE float add_neighbours_first(FloatVector lanes) {
  float l[8];
  hn::StoreU(lanes, Floats(), l);
  return ((l[4] + l[0]) + (l[5] + l[1])) + ((l[6] + l[2]) + (l[7] + l[3]));
}

void dot_interleaved(const InterleavedTile& tile, const QuantizedRows& x, int64_t token, float* outputs) {
  const Floats floats;
  const Integers integers;
  const int16_t* codes = tile.codes.data();
  const int16_t* activations = x.row_codes(token);
  const float* activation_scales = x.row_scales(token);
  FloatVector sum = hn::Zero(floats);
  for (int64_t b = 0; b < tile.blocks; ++b) {
    IntegerVector even = hn::Zero(integers);
    IntegerVector odd = hn::Zero(integers);
    for (int64_t i = 0; i < grid::kBlock; i += 4, codes += 32, activations += 4) {
      int32_t pairs[2];
      hwy::CopyBytes<8>(activations, pairs);
      even = pair_dot(codes, hn::BitCast(Shorts(), hn::Set(integers, pairs[0])), even);
      odd = pair_dot(codes + 16, hn::BitCast(Shorts(), hn::Set(integers, pairs[1])), odd);
    }
    const FloatVector scale =
        hn::Mul(hn::LoadU(floats, tile.scales.data() + b * kInterleavedRows), hn::Set(floats, activation_scales[b]));
    sum = hn::MulAdd(hn::ConvertTo(floats, hn::Add(even, odd)), scale, sum);
  }
  hn::StoreU(sum, floats, outputs);
}

float dot_codes(const CodeRow& row, const QuantizedRows& x, int64_t token) {
  const Floats floats;
  const int16_t* activations = x.row_codes(token);
  const float* activation_scales = x.row_scales(token);
  FloatVector lanes = hn::Zero(floats);
  for (int64_t b = 0; b < row.blocks; ++b) {
    const FloatVector scale = hn::Set(floats, row.scales[static_cast<size_t>(b)] * activation_scales[b]);
    const IntegerVector dots = quad_dots(row.codes.data() + b * grid::kBlock, activations + b * grid::kBlock);
    lanes = hn::MulAdd(scale, hn::ConvertTo(floats, dots), lanes);
  }
  return add_halves_first(lanes);
}

float dot_super_blocks(const SuperBlockRow& row, const QuantizedRows& x, int64_t token) {
  const Floats floats;
  const Integers integers;
  FloatVector lanes = hn::Zero(floats);
  for (int64_t b = 0; b < row.blocks; ++b) {
    const int16_t* codes = row.codes.data() + b * grid::kSuperBlock;
    const int16_t* activations = x.row_codes(token) + b * grid::kSuperBlock;
    const int32_t* sub_scales = row.sub_scales.data() + b * 16;
    const int32_t* sums = x.row_sums(token) + b * 16;
    int32_t offsets[8];
    for (size_t l = 0; l < 8; ++l) {
      offsets[l] = -32 * (sums[2 * l] * sub_scales[2 * l] + sums[2 * l + 1] * sub_scales[2 * l + 1]);
    }
    IntegerVector dots = hn::LoadU(integers, offsets);
    for (int64_t run = 0; run < 8; ++run) {
      const IntegerVector scale = hn::ConcatLowerLower(integers, hn::Set(integers, sub_scales[2 * run + 1]),
                                                       hn::Set(integers, sub_scales[2 * run]));
      dots = hn::Add(dots, hn::Mul(scale, quad_dots(codes + run * grid::kBlock, activations + run * grid::kBlock)));
    }
    const float scale = x.row_scales(token)[b] * row.scales[static_cast<size_t>(b)];
    lanes = hn::MulAdd(hn::Set(floats, scale), hn::ConvertTo(floats, dots), lanes);
  }
  return add_halves_first(lanes);
}

template <int kVectors>
HWY_INLINE FloatVector sum_products(const float* a, const float* b, int64_t whole) {
  const Floats floats;
  FloatVector sums[4] = {hn::Zero(floats), hn::Zero(floats), hn::Zero(floats), hn::Zero(floats)};
  for (int64_t i = 0; i < whole; i += 8 * kVectors) {
    for (int v = 0; v < kVectors; ++v) {
      sums[v] = hn::MulAdd(hn::LoadU(floats, a + i + 8 * v), hn::LoadU(floats, b + i + 8 * v), sums[v]);
    }
  }
  if (kVectors == 1) return sums[0];
  return hn::Add(hn::Add(sums[0], sums[2]), hn::Add(sums[1], sums[3]));
}

float dot_floats(const float* a, const float* b, int64_t count, SumOrder order, bool double_tail) {
  const int64_t step = order == SumOrder::OneVector ? 8 : 32;
  const int64_t whole = count / step * step;
  const FloatVector lanes = order == SumOrder::OneVector ? sum_products<1>(a, b, whole) : sum_products<4>(a, b, whole);
  float sum = order == SumOrder::FourVectors ? add_neighbours_first(lanes) : add_halves_first(lanes);
  if (whole == count) return sum;
  if (double_tail) {
    double wide = static_cast<double>(sum);
    for (int64_t i = whole; i < count; ++i) wide += static_cast<double>(a[i] * b[i]);
    return static_cast<float>(wide);
  }
  // ggml's compilers multiply this loop eight values at a time and fuse only what is left of it.
  const int64_t eights = count / 8 * 8;
  for (int64_t i = whole; i < eights; ++i) sum += a[i] * b[i];
  for (int64_t i = eights; i < count; ++i) sum = __builtin_fmaf(a[i], b[i], sum);
  return sum;
}

void add_scaled(float* sum, const float* values, float factor, int64_t count, bool half) {
  const Floats floats;
  const hn::Rebind<hwy::float16_t, Floats> halves;
  const int64_t whole = count / 8 * 8;
  for (int64_t i = 0; i < whole; i += 8) {
    FloatVector next = hn::MulAdd(hn::LoadU(floats, values + i), hn::Set(floats, factor), hn::LoadU(floats, sum + i));
    if (half) next = hn::PromoteTo(floats, hn::DemoteTo(halves, next));
    hn::StoreU(next, floats, sum + i);
  }
  scalar::add_scaled(sum + whole, values + whole, factor, count - whole, half);
}

#else

using scalar::add_scaled;
using scalar::dot_codes;
using scalar::dot_floats;
using scalar::dot_interleaved;
using scalar::dot_super_blocks;

#endif

}  // namespace qat::device::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qat::device {

HWY_EXPORT(dot_interleaved);
HWY_EXPORT(dot_codes);
HWY_EXPORT(dot_super_blocks);
HWY_EXPORT(dot_floats);
HWY_EXPORT(add_scaled);

void dot_interleaved(const InterleavedTile& tile, const QuantizedRows& x, int64_t token, float* outputs) {
  HWY_DYNAMIC_DISPATCH(dot_interleaved)(tile, x, token, outputs);
}
float dot_codes(const CodeRow& row, const QuantizedRows& x, int64_t token) {
  return HWY_DYNAMIC_DISPATCH(dot_codes)(row, x, token);
}
float dot_super_blocks(const SuperBlockRow& row, const QuantizedRows& x, int64_t token) {
  return HWY_DYNAMIC_DISPATCH(dot_super_blocks)(row, x, token);
}
float dot_floats(const float* a, const float* b, int64_t count, SumOrder order, bool double_tail) {
  return HWY_DYNAMIC_DISPATCH(dot_floats)(a, b, count, order, double_tail);
}
void add_scaled(float* sum, const float* values, float factor, int64_t count, bool half) {
  HWY_DYNAMIC_DISPATCH(add_scaled)(sum, values, factor, count, half);
}

}  // namespace qat::device
#endif
