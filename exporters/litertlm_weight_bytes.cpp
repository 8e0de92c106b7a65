#include "exporters/litertlm_weight_bytes.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/float_types.h"
#include "exporters/row_pieces.h"
#include "quant/packing.h"

namespace qat {

namespace {

constexpr int64_t kPieceValues = int64_t{4} << 20;

// Calls visit(index of the first value, values) for pieces of an unquantized weight.
template <class Visit>
void for_values(const LitertlmWeights& weights, const WeightSpec& weight, Visit visit) {
  std::vector<float> values;
  for_row_pieces(weight, kPieceValues, [&](int64_t first, int64_t rows) {
    values.resize(static_cast<size_t>(rows * weight.columns()));
    weights.values(weight, first, rows, values);
    visit(static_cast<uint64_t>(first * weight.columns()), values);
  });
}

// True if both weights have the same scheme, scales and codes.
bool equal_weights(const LitertlmWeights& weights, const WeightSpec& a, const WeightSpec& b) {
  if (weights.scheme_of(a).id != weights.scheme_of(b).id || !weights.scheme_of(a).has_row_scales() ||
      a.shape != b.shape) {
    return false;
  }
  if (!std::ranges::equal(weights.scales(a), weights.scales(b))) return false;
  bool equal = true;
  std::vector<int8_t> left, right;
  for_row_pieces(a, kPieceValues, [&](int64_t first, int64_t rows) {
    if (!equal) return;
    left.resize(static_cast<size_t>(rows * a.columns()));
    right.resize(left.size());
    weights.codes(a, first, rows, left);
    weights.codes(b, first, rows, right);
    equal = left == right;
  });
  return equal;
}

// The lowest bit of a BF16 number that is set: value = odd * 2^(this).
int lowest_bit(float value) {
  int exponent = 0;
  auto digits = static_cast<int64_t>(std::ldexp(std::frexp(value, &exponent), 24));
  exponent -= 24;
  for (; digits % 2 == 0; digits /= 2) ++exponent;
  return exponent;
}

}  // namespace

bool head_is_table(const LitertlmWeights& weights) {
  if (weights.config().tied_head) return true;
  const WeightSpec* head = weights.table().find("lm_head.weight");
  const WeightSpec* table = weights.table().find("embed_tokens.weight");
  const LinearScales scales = weights.linear_scales(*head);
  return scales.input == 0 && scales.output == 0 && equal_weights(weights, *head, *table);
}

void write_codes(const LitertlmWeights& weights, const WeightSpec& weight, int64_t width,
                 std::span<const SlicePlace> places, const WriteBytes& write) {
  const QuantScheme& scheme = weights.scheme_of(weight);
  const int64_t columns = weight.columns(), slice_bytes = scheme.row_bytes(width);
  std::vector<int8_t> codes, part;
  std::vector<std::byte> packed;
  for_row_pieces(weight, kPieceValues, [&](int64_t first, int64_t rows) {
    codes.resize(static_cast<size_t>(rows * columns));
    weights.codes(weight, first, rows, codes);
    packed.resize(static_cast<size_t>(rows * slice_bytes));
    part.resize(static_cast<size_t>(rows * width));
    for (const SlicePlace& place : places) {
      for (int64_t row = 0; row < rows; ++row) {
        std::copy_n(codes.begin() + row * columns + place.slice * width, width, part.begin() + row * width);
      }
      pack_codes(scheme.id, CodeBytes::TwosComplement, part, packed);
      write(place.offset + static_cast<uint64_t>(first * slice_bytes), packed);
    }
  });
}

std::optional<int> half_exponent(const LitertlmWeights& weights, const WeightSpec& weight) {
  constexpr int kHalfDigits = 11, kHalfLargestExponent = 16, kHalfLowestBit = -24;
  int largest = INT32_MIN, lowest = INT32_MAX;
  bool exact = true;
  for_values(weights, weight, [&](uint64_t, const std::vector<float>& values) {
    for (const float value : values) {
      if (value == 0) continue;
      int exponent = 0;
      std::frexp(value, &exponent);
      const int lowest_of_value = lowest_bit(value);
      exact = exact && exponent - lowest_of_value <= kHalfDigits;
      largest = std::max(largest, exponent);
      lowest = std::min(lowest, lowest_of_value);
    }
  });
  if (!exact) return std::nullopt;
  if (largest == INT32_MIN) return 0;
  if (largest - lowest > kHalfLargestExponent - kHalfLowestBit) return std::nullopt;
  return largest <= kHalfLargestExponent && lowest >= kHalfLowestBit ? 0 : kHalfLargestExponent - largest;
}

void write_halves(const LitertlmWeights& weights, const WeightSpec& weight, int exponent, uint64_t offset,
                  const WriteBytes& write) {
  std::vector<Float16> halves;
  for_values(weights, weight, [&](uint64_t begin, const std::vector<float>& values) {
    halves.resize(values.size());
    for (size_t i = 0; i < values.size(); ++i) halves[i] = to_float16(std::ldexp(values[i], exponent));
    write(offset + begin * sizeof(Float16), std::as_bytes(std::span(halves)));
  });
}

void write_floats(const LitertlmWeights& weights, const WeightSpec& weight, uint64_t offset, const WriteBytes& write) {
  for_values(weights, weight, [&](uint64_t begin, const std::vector<float>& values) {
    write(offset + begin * sizeof(float), std::as_bytes(std::span(values)));
  });
}

}  // namespace qat
