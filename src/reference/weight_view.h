// A weight where it lies in a mapped file: its encoding, shape and bytes. Nothing is copied or decoded as a whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "gemma4/static_scales.h"
#include "quant/packing.h"
#include "quant/scheme.h"

namespace qat {

struct LowRankChange;

struct WeightView {
  const QuantScheme* scheme = nullptr;
  std::vector<int64_t> shape;         // row-major, slowest first
  std::span<const std::byte> blocks;  // of schemes with row scales: packed codes
  std::string name = {};              // in WeightTable; empty for a matrix of a stack

  // Of Int2, Int4 and Int8 only.
  CodeBytes code_bytes = CodeBytes::TwosComplement;
  std::span<const float> scales = {};  // one per `scale_width` values, row-major
  int64_t scale_width = 0;
  LinearScales edges = {};  // static int8 codes at the linear's ends

  // Added to its products; null for none.
  std::shared_ptr<const LowRankChange> change = nullptr;

  int64_t columns() const { return shape.back(); }
  int64_t row_bytes() const { return scheme->row_bytes(columns()); }
  int64_t rows() const { return static_cast<int64_t>(blocks.size()) / row_bytes(); }
  // The blocks of `count` rows from `first` on.
  std::span<const std::byte> row_blocks(int64_t first, int64_t count = 1) const {
    return blocks.subspan(static_cast<size_t>(first * row_bytes()), static_cast<size_t>(count * row_bytes()));
  }
  // One matrix [out, in] of a stack [experts, out, in], which has no row scales.
  WeightView slice(int64_t index) const {
    return {scheme, {shape[1], shape[2]}, row_blocks(index * shape[1], shape[1])};
  }
};

// scaling (x A^T) B^T: an adapter beside a weight.
struct LowRankChange {
  WeightView a;  // [rank, in]
  WeightView b;  // [out, rank]
  float scaling = 1;
};

// The exact values of `count` rows from `first` on, in fp32.
void decode_rows(const WeightView& weight, int64_t first, int64_t count, std::span<float> values);

}  // namespace qat
