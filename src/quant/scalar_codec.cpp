#include "quant/scalar_codec.h"

#include <array>
#include <cstring>
#include <limits>

#include "quant/q4_0_search.h"

namespace qat::scalar {

namespace {

constexpr size_t kHalf = grid::kBlock / 2;

Float16 load_scale(const uint8_t* bytes) {
  Float16 scale;
  std::memcpy(&scale, bytes, sizeof(scale));
  return scale;
}

void round_to_bfloat16(DecodedBlock values) {
  for (float& value : values) value = to_float(to_bfloat16(value));
}

struct BestScale {
  Float16 scale;
  float error;
};

float squared_error(Block values, Float16 scale) {
  const float inverse = grid::inverse_scale(to_float(scale));
  float error = 0;
  for (const float value : values) {
    const float off = grid::q4_0_value(grid::q4_0_code(value, inverse), scale) - value;
    error += off * off;
  }
  return error;
}

Float16 finite_float16(float value) {
  const Float16 nearest = to_float16(value);
  const bool is_infinite = (nearest.bits & 0x7fffu) == 0x7c00u;
  return is_infinite ? Float16{static_cast<uint16_t>(nearest.bits - 1)} : nearest;
}

void try_multiples(Block values, float scale, std::span<const float> factors, BestScale& best) {
  for (const float factor : factors) {
    const Float16 candidate = finite_float16(scale * factor);
    const float error = squared_error(values, candidate);
    if (error < best.error) best = {candidate, error};
  }
}

}  // namespace

EncodingScale q4_0_encoding_scale(Block values, const Float16* stored_scale) {
  if (stored_scale != nullptr) return {grid::inverse_scale(to_float(*stored_scale)), *stored_scale};
  const float scale = grid::q4_0_scale(values);
  return {grid::inverse_scale(scale), to_float16(scale)};
}

Float16 q4_0_searched_scale(Block values) {
  const float rule = grid::q4_0_scale(values);
  BestScale best{finite_float16(rule), std::numeric_limits<float>::infinity()};
  try_multiples(values, rule, kCoarseFactors, best);
  try_multiples(values, to_float(best.scale), kFineFactors, best);
  return best.scale;
}

void encode_q4_0(Block values, const Float16* stored_scale, uint8_t* bytes) {
  const auto [inverse, stored] = q4_0_encoding_scale(values, stored_scale);
  std::memcpy(bytes, &stored, sizeof(stored));
  for (size_t i = 0; i < kHalf; ++i) {
    const uint8_t low = grid::q4_0_code(values[i], inverse);
    const uint8_t high = grid::q4_0_code(values[i + kHalf], inverse);
    bytes[2 + i] = static_cast<uint8_t>(low | (high << 4));
  }
}

void encode_q8_0(Block values, uint8_t* bytes) {
  const float scale = grid::q8_0_scale(values);
  const float inverse = grid::inverse_scale(scale);
  const Float16 stored = to_float16(scale);
  std::memcpy(bytes, &stored, sizeof(stored));
  for (size_t i = 0; i < grid::kBlock; ++i) bytes[2 + i] = static_cast<uint8_t>(grid::q8_0_code(values[i], inverse));
}

void decode_q4_0(const uint8_t* bytes, DecodedBlock values) {
  const Float16 scale = load_scale(bytes);
  for (size_t i = 0; i < kHalf; ++i) {
    values[i] = grid::q4_0_value(bytes[2 + i] & 15, scale);
    values[i + kHalf] = grid::q4_0_value(bytes[2 + i] >> 4, scale);
  }
}

void decode_q8_0(const uint8_t* bytes, DecodedBlock values) {
  const Float16 scale = load_scale(bytes);
  for (size_t i = 0; i < grid::kBlock; ++i) values[i] = grid::q8_0_value(static_cast<int8_t>(bytes[2 + i]), scale);
}

void fake_quantize_q4_0(Block values, const Float16* stored_scale, DecodedBlock result) {
  std::array<uint8_t, kBytesQ4_0> bytes;
  encode_q4_0(values, stored_scale, bytes.data());
  decode_q4_0(bytes.data(), result);
  round_to_bfloat16(result);
}

void fake_quantize_q8_0(Block values, DecodedBlock result) {
  std::array<uint8_t, kBytesQ8_0> bytes;
  encode_q8_0(values, bytes.data());
  decode_q8_0(bytes.data(), result);
  round_to_bfloat16(result);
}

}  // namespace qat::scalar
