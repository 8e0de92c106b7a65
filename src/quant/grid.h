// THE grid: the scalar rules of every quantization scheme. Training, exporters, reference inference and tests call these;
// no other file rounds to a grid. All arithmetic is fp32, one rounding per operation, never contracted to an FMA.
//
// Int2, Int4 and Int8 follow the integer kernels of LiteRT's CPU delegate (mobile_format.md 1.3, 1.4, 3). Q4_0, Q8_0 and Q6_K follow ggml's reference quantizers (quantize_row_{q4_0,q8_0,q6_K}_ref; gguf_q4_0.md 2.2, 2.3, 2.7).
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

#include "core/float_types.h"

namespace qat::grid {

inline constexpr int kBlock = 32;  // values per Q4_0 or Q8_0 block

// Nearest integer, ties to even. The default rounding mode of the floating-point environment is relied on.
inline float round_half_even(float value) { return std::nearbyint(value); }

// 1/scale as the encoders multiply by it; 0 for a zero scale.
inline float inverse_scale(float scale) { return scale != 0.0f ? 1.0f / scale : 0.0f; }

// ---- Q4_0: codes 0..15 stand for -8..7

// The unrounded scale of a block: its value of largest magnitude (the first one on ties) over -8.
inline float q4_0_scale(std::span<const float, kBlock> block) {
  float extremum = 0.0f;
  float magnitude = 0.0f;
  for (const float value : block) {
    if (std::fabs(value) > magnitude) {
      magnitude = std::fabs(value);
      extremum = value;
    }
  }
  return extremum / -8.0f;
}

// Code of a value. Halves go up: the shifted value is truncated. An infinite inverse (scale below 2^-128) gives 0, as
// ggml's conversion of a non-finite float does on x86; such a block decodes to zeros whatever its codes are.
inline uint8_t q4_0_code(float value, float inverse) {
  if (!std::isfinite(inverse)) return 0;
  const float shifted = value * inverse + 8.5f;
  return static_cast<uint8_t>(std::fmin(std::fmax(shifted, 0.0f), 15.0f));
}

// Value of a code under the stored (fp16) scale.
inline float q4_0_value(uint8_t code, Float16 scale) {
  return to_float(scale) * static_cast<float>(static_cast<int>(code) - 8);
}

// Whether a value lies inside the range that the codes cover: outside, a clipped straight-through estimator passes no
// gradient.
inline bool q4_0_inside_range(float value, float inverse) {
  const float scaled = value * inverse;
  return scaled >= -8.0f && scaled <= 7.0f;
}

// ---- Q8_0: codes -127..127

// The unrounded scale of a block: its largest magnitude over 127.
inline float q8_0_scale(std::span<const float, kBlock> block) {
  float magnitude = 0.0f;
  for (const float value : block) magnitude = std::fmax(magnitude, std::fabs(value));
  return magnitude / 127.0f;
}

// Code of a weight: halves go away from zero.
inline int8_t q8_0_code(float value, float inverse) {
  if (!std::isfinite(inverse)) return 0;
  return static_cast<int8_t>(std::roundf(value * inverse));
}

// For activations and the KV cache llama.cpp's x86 kernels use the reciprocal 127/magnitude and ties to even
// (arch/x86/quants.c; gguf_q4_0.md section 3).
inline float q8_0_runtime_inverse(std::span<const float, kBlock> block) {
  float magnitude = 0.0f;
  for (const float value : block) magnitude = std::fmax(magnitude, std::fabs(value));
  return magnitude != 0.0f ? 127.0f / magnitude : 0.0f;
}
inline int8_t q8_0_runtime_code(float value, float inverse) {
  if (!std::isfinite(inverse)) return 0;
  return static_cast<int8_t>(round_half_even(value * inverse));
}

inline float q8_0_value(int8_t code, Float16 scale) { return to_float(scale) * static_cast<float>(code); }

// ---- Q6_K: codes -32..31 in groups of 16; 16 groups share one fp16 scale and have an 8-bit sub-scale each.
// How the scales are searched: q6_k_kernel.cpp (gguf_q4_0.md 2.7).

inline constexpr int kSuperBlock = 256;
inline constexpr int kGroup = 16;
inline constexpr float kSmallestQ6_K = 1e-15f;  // a group whose largest magnitude is below this counts as zero

// Code of a value that is already divided by its step.
inline int8_t q6_k_code(float scaled) {
  return static_cast<int8_t>(std::fmin(std::fmax(round_half_even(scaled), -32.0f), 31.0f));
}

// Sub-scale of a group scale that is already divided by the scale of the super-block.
inline int8_t q6_k_sub_scale(float scaled) {
  return static_cast<int8_t>(std::fmin(std::fmax(round_half_even(scaled), -128.0f), 127.0f));
}

// The step of a group, and the value of a code.
inline float q6_k_step(Float16 scale, int8_t sub_scale) { return to_float(scale) * static_cast<float>(sub_scale); }
inline float q6_k_value(int8_t code, float step) { return step * static_cast<float>(code); }

// ---- Q8_K: what llama.cpp turns activations into where they meet Q6_K weights; codes -127..127 under one fp32 scale per 256
// values (quantize_row_q8_K_ref).

// -127 over the value of largest magnitude (the first one on ties), 0 for zeros. The scale is one over it.
inline float q8_k_inverse(std::span<const float, kSuperBlock> block) {
  float extremum = 0.0f;
  for (const float value : block) {
    if (std::fabs(value) > std::fabs(extremum)) extremum = value;
  }
  return extremum != 0.0f ? -127.0f / extremum : 0.0f;
}
inline int8_t q8_k_code(float value, float inverse) {
  return static_cast<int8_t>(std::fmin(round_half_even(value * inverse), 127.0f));
}

// ---- Signed integers under one fp32 scale: Int2, Int4 and Int8 rows of weights, static int8 activations, the int8 KV cache.
// `inverse` is inverse_scale(scale), rounded to fp32 before the product.

// Code of a value: halves go to the even code. A value that is no number gets code_max.
inline int8_t integer_code(float value, float inverse, int code_min, int code_max) {
  const float scaled = std::fmax(std::fmin(value * inverse, static_cast<float>(code_max)), static_cast<float>(code_min));
  return static_cast<int8_t>(round_half_even(scaled));
}

inline float integer_value(int8_t code, float scale) { return static_cast<float>(code) * scale; }

// Whether a value lies inside the range that the codes cover: outside, a clipped straight-through estimator passes no
// gradient.
inline bool integer_inside_range(float value, float inverse, int code_min, int code_max) {
  const float scaled = value * inverse;
  return scaled >= static_cast<float>(code_min) && scaled <= static_cast<float>(code_max);
}

inline constexpr int kActivationMin = -128;  // codes of static activations and of the int8 KV cache
inline constexpr int kActivationMax = 127;

// ---- Dynamic int8 activations: an asymmetric grid per token, found when the token is there. XNNPACK takes it where a
// float input meets integer weights (mobile_format.md 3, item 3).

struct DynamicGrid {
  float inverse;     // codes per unit
  float zero_point;  // the whole number that stands for 0
};

// From a token's smallest and largest value. The zero point is exact at the end of the range that is further from zero.
inline DynamicGrid dynamic_grid(float smallest, float largest) {
  const float low = std::fmin(smallest, 0.0f);
  const float high = std::fmax(largest, 0.0f);
  const float inverse = low == high ? 1.0f : 255.0f / (high - low);
  const float low_error = -128.0f + low * inverse;
  const float high_error = 127.0f + high * inverse;
  const float zero_point = low_error + high_error > 0.0f ? -128.0f - low * inverse : 127.0f - high * inverse;
  return {inverse, round_half_even(std::fmin(std::fmax(zero_point, -128.0f), 127.0f))};
}

// The code of a value less the zero point: -255..255.
inline int16_t dynamic_code(float value, const DynamicGrid& grid) {
  const float code = round_half_even(value * grid.inverse);
  return static_cast<int16_t>(std::fmax(std::fmin(code, 127.0f - grid.zero_point), -128.0f - grid.zero_point));
}

}  // namespace qat::grid
