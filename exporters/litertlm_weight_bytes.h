// Bytes of weights as TFLite stores them, converted in bounded pieces and handed to whoever has a place for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "exporters/litertlm_weights.h"

namespace qat {

// Puts bytes at an offset of the caller's file or section.
using WriteBytes = std::function<void(uint64_t offset, std::span<const std::byte> bytes)>;

// Where a slice of every row lies (slice l of a per-layer table is layer l's), or, as the only one, whole rows.
struct SlicePlace {
  int64_t slice = 0;
  uint64_t offset = 0;
};

// True if the head is tied to the token table, or has its codes and scales and no static edges.
bool head_is_table(const LitertlmWeights& weights);

// Packed codes; `width` values of a row are a slice.
void write_codes(const LitertlmWeights& weights, const WeightSpec& weight, int64_t width,
                 std::span<const SlicePlace> places, const WriteBytes& write);

// The exponent that brings every value of an unquantized matrix into float16's range exactly, value = stored /
// 2^exponent; 0 if the values are there already, nothing if some value is not exact.
std::optional<int> half_exponent(const LitertlmWeights& weights, const WeightSpec& weight);
// Values as float16 after multiplying by 2^exponent.
void write_halves(const LitertlmWeights& weights, const WeightSpec& weight, int exponent, uint64_t offset,
                  const WriteBytes& write);
void write_floats(const LitertlmWeights& weights, const WeightSpec& weight, uint64_t offset, const WriteBytes& write);

}  // namespace qat
