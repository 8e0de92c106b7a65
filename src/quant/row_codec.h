// Values <-> signed integer codes under one fp32 scale per group: rows of Int2, Int4 and Int8 weights (or slices of a
// table's rows), static int8 activations, the int8 KV cache. Highway kernels that equal the scalar rules of grid.h bit
// for bit. Multithreading is the caller's.
#pragma once

#include <cstdint>
#include <span>

#include "core/float_types.h"
#include "quant/scheme.h"

namespace qat {

// Groups of `width` consecutive values share a scale; values.size() = scales.size() * width. Scales are positive.
void encode_groups(Scheme scheme, std::span<const BFloat16> values, std::span<const float> scales, int64_t width,
                   std::span<int8_t> codes);
void encode_groups(Scheme scheme, std::span<const float> values, std::span<const float> scales, int64_t width,
                   std::span<int8_t> codes);

// The exact fp32 values that codes stand for.
void decode_groups(std::span<const int8_t> codes, std::span<const float> scales, int64_t width,
                   std::span<float> values);

// The same rounded to BF16.
void decode_groups(std::span<const int8_t> codes, std::span<const float> scales, int64_t width,
                   std::span<BFloat16> values);

// Whether every run of `groups` scales, two or more, is one number: the slices of a table's row that share a scale.
bool groups_share_scales(std::span<const float> scales, int64_t groups);

// decode(encode(values)) of one group: the forward value of fake-quantized weights, static int8 activations and int8
// caches; in BF16 rounded to it. `results` may be `values`.
void fake_quantize_group(Scheme scheme, std::span<const float> values, float scale, std::span<float> results);
void fake_quantize_group(Scheme scheme, std::span<const BFloat16> values, float scale, std::span<BFloat16> results);

// What the backward pass of learned scales needs of one group (LSQ, arXiv 1902.08153). With v = value * inverse:
// `masked` gets the gradient where v is inside the code range and 0 elsewhere (may alias `gradient`); returned is the
// sum of gradient * (round(v) - v) inside, gradient * code_min or code_max outside.
double scale_gradient(Scheme scheme, std::span<const float> values, std::span<const float> gradient, float scale,
                      std::span<float> masked);
double scale_gradient(Scheme scheme, std::span<const BFloat16> values, std::span<const BFloat16> gradient, float scale,
                      std::span<BFloat16> masked);

// How scales are found from values. Both are positive normal numbers, 1 for a group of zeros.
// Largest magnitude / code_max: round-to-nearest's scale.
float absolute_max_scale(Scheme scheme, std::span<const float> group);
// The scale of least squared error: a geometric search, then alternating least squares.
float searched_scale(Scheme scheme, std::span<const float> group);
// Sum of squared errors of decode(encode(values)).
double squared_error(Scheme scheme, std::span<const float> values, float scale);

}  // namespace qat
