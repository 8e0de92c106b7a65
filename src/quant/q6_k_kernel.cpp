// Q6_K for every instruction set: the search of gguf_q4_0.md 2.7. The sums of a group run strictly in element order, so
// the lanes of a vector are the 16 groups of a block, each doing its own scalar arithmetic.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/q6_k_kernel.cpp"
// clang-format off
#include <hwy/foreach_target.h>  // must come first
// clang-format on
#include <cmath>
#include <cstring>

#include "quant/block_kernels.h"
#include "quant/grid.h"
#include "quant/q6_k_block.h"
#include "quant/vector_loads-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qat::HWY_NAMESPACE {

constexpr size_t kValues = grid::kSuperBlock;
constexpr size_t kGroups = grid::kGroup;     // groups of a block
constexpr size_t kGroupSize = grid::kGroup;  // values of a group

HWY_INLINE FloatVector nearest_codes(FloatVector scaled) {
  const Floats tag;
  return hn::Min(hn::Max(hn::Round(scaled), hn::Set(tag, -32.0f)), hn::Set(tag, 31.0f));
}

// Of the two weighted sums of a try: code times value, and code times code.
struct TrySums {
  FloatVector along;
  FloatVector square;
};

// `groups`: value i of group g at [i * 16 + g]; the first lane's group is already added.
HWY_INLINE TrySums try_scale(const float* groups, FloatVector inverse) {
  const Floats tag;
  TrySums sums{hn::Zero(tag), hn::Zero(tag)};
  for (size_t i = 0; i < kGroupSize; ++i) {
    const FloatVector value = hn::LoadU(tag, groups + i * kGroups);
    const FloatVector weight = hn::Mul(value, value);
    const FloatVector code = nearest_codes(hn::Mul(inverse, value));
    sums.along = hn::Add(sums.along, hn::Mul(hn::Mul(weight, value), code));
    sums.square = hn::Add(sums.square, hn::Mul(hn::Mul(weight, code), code));
  }
  return sums;
}

// Step 1 for as many groups as a vector has lanes: the best scale of each, and the inverse that gave its codes. Groups
// that count as zero get 0 and 0.
HWY_INLINE void search_groups(const float* groups, float* scales, float* inverses) {
  const Floats tag;
  const FloatVector zero = hn::Zero(tag);
  FloatVector extremum = zero;
  FloatVector magnitude = zero;
  for (size_t i = 0; i < kGroupSize; ++i) {
    const FloatVector value = hn::LoadU(tag, groups + i * kGroups);
    const auto larger = hn::Gt(hn::Abs(value), magnitude);
    extremum = hn::IfThenElse(larger, value, extremum);
    magnitude = hn::Max(magnitude, hn::Abs(value));
  }
  FloatVector inverse = hn::Div(hn::Set(tag, -32.0f), extremum);
  const TrySums first = try_scale(groups, inverse);
  const auto no_codes = hn::Eq(first.square, zero);
  FloatVector scale = hn::IfThenElse(no_codes, zero, hn::Div(first.along, first.square));
  FloatVector best = hn::Mul(scale, first.along);
  for (int k = -9; k <= 9; ++k) {
    if (k == 0) continue;
    const FloatVector candidate = hn::Div(hn::Set(tag, -(32.0f + 0.1f * static_cast<float>(k))), extremum);
    const TrySums sums = try_scale(groups, candidate);
    const auto better =
        hn::And(hn::Gt(sums.square, zero), hn::Gt(hn::Mul(sums.along, sums.along), hn::Mul(best, sums.square)));
    const FloatVector candidate_scale = hn::Div(sums.along, sums.square);
    scale = hn::IfThenElse(better, candidate_scale, scale);
    best = hn::IfThenElse(better, hn::Mul(candidate_scale, sums.along), best);
    inverse = hn::IfThenElse(better, candidate, inverse);
  }
  const auto counts = hn::Ge(magnitude, hn::Set(tag, grid::kSmallestQ6_K));
  hn::StoreU(hn::IfThenElseZero(counts, scale), tag, scales);
  hn::StoreU(hn::IfThenElseZero(counts, inverse), tag, inverses);
}

// Codes 0..63 of a group: nearest multiples of its step; where the step rounded to zero, the codes of the search.
HWY_INLINE void group_codes(const float* values, float step, float inverse, uint8_t* codes) {
  const Floats tag;
  const Bytes small;
  if (step == 0.0f && inverse == 0.0f) {
    std::memset(codes, 0, kGroupSize);
    return;
  }
  for (size_t i = 0; i < kGroupSize; i += hn::Lanes(tag)) {
    const FloatVector value = hn::LoadU(tag, values + i);
    const FloatVector scaled =
        step == 0.0f ? hn::Mul(hn::Set(tag, inverse), value) : hn::Div(value, hn::Set(tag, step));
    const auto shifted = hn::ConvertTo(Integers(), hn::Add(nearest_codes(scaled), hn::Set(tag, 32.0f)));
    hn::StoreU(hn::DemoteTo(small, shifted), small, codes + i);
  }
}

HWY_INLINE void encode_block(const float* values, BlockQ6_K& block) {
  HWY_ALIGN float groups[kValues];
  float scales[kGroups];
  float inverses[kGroups];
  for (size_t g = 0; g < kGroups; ++g) {
    for (size_t i = 0; i < kGroupSize; ++i) groups[i * kGroups + g] = values[g * kGroupSize + i];
  }
  for (size_t g = 0; g < kGroups; g += hn::Lanes(Floats())) search_groups(groups + g, scales + g, inverses + g);

  float largest = 0.0f;
  for (const float scale : scales) {
    if (std::fabs(scale) > std::fabs(largest)) largest = scale;
  }
  if (std::fabs(largest) < grid::kSmallestQ6_K) {
    std::memset(&block, 0, sizeof(block));
    return;
  }
  const float inverse = -128.0f / largest;
  block.scale = to_float16(1.0f / inverse);
  uint8_t codes[kValues];
  for (size_t g = 0; g < kGroups; ++g) {
    block.sub_scales[g] = grid::q6_k_sub_scale(inverse * scales[g]);
    const float step = grid::q6_k_step(block.scale, block.sub_scales[g]);
    group_codes(values + g * kGroupSize, step, inverses[g], codes + g * kGroupSize);
  }
  pack_q6_k_codes(codes, block);
}

void encode_q6_k_float(const float* values, size_t blocks, uint8_t* bytes) {
  for (size_t i = 0; i < blocks; ++i) {
    BlockQ6_K block;
    encode_block(values + i * kValues, block);
    std::memcpy(bytes + i * sizeof(block), &block, sizeof(block));
  }
}

void decode_q6_k_float(const uint8_t* bytes, size_t blocks, float* values) {
  const Floats tag;
  const SignedBytes small;
  int8_t codes[kValues];
  for (size_t i = 0; i < blocks; ++i, values += kValues) {
    BlockQ6_K block;
    std::memcpy(&block, bytes + i * sizeof(block), sizeof(block));
    unpack_q6_k_codes(block, codes);
    for (size_t g = 0; g < kGroups; ++g) {
      const FloatVector step = hn::Set(tag, grid::q6_k_step(block.scale, block.sub_scales[g]));
      for (size_t j = g * kGroupSize; j < (g + 1) * kGroupSize; j += hn::Lanes(tag)) {
        const auto integers = hn::PromoteTo(Integers(), hn::LoadU(small, codes + j));
        hn::StoreU(hn::Mul(step, hn::ConvertTo(tag, integers)), tag, values + j);
      }
    }
  }
}

}  // namespace qat::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qat {
HWY_EXPORT(encode_q6_k_float);
HWY_EXPORT(decode_q6_k_float);

namespace kernels {

void encode_q6_k(const float* values, size_t blocks, uint8_t* bytes) {
  HWY_DYNAMIC_DISPATCH(encode_q6_k_float)(values, blocks, bytes);
}
void decode_q6_k(const uint8_t* bytes, size_t blocks, float* values) {
  HWY_DYNAMIC_DISPATCH(decode_q6_k_float)(bytes, blocks, values);
}

}  // namespace kernels
}  // namespace qat
#endif
