// A weight where it lies in a mapped file: its encoding, shape and bytes. Nothing is copied or decoded as a whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quant/scheme.h"

namespace qat {

struct WeightView {
  const QuantScheme* scheme = nullptr;
  std::vector<int64_t> shape;  // row-major, slowest first
  std::span<const std::byte> blocks;

  int64_t columns() const { return shape.back(); }
  int64_t row_bytes() const { return scheme->row_bytes(columns()); }
  int64_t rows() const { return static_cast<int64_t>(blocks.size()) / row_bytes(); }
  // The blocks of `count` rows from `first` on.
  std::span<const std::byte> row_blocks(int64_t first, int64_t count = 1) const {
    return blocks.subspan(static_cast<size_t>(first * row_bytes()), static_cast<size_t>(count * row_bytes()));
  }
  // One matrix [out, in] of a stack [experts, out, in].
  WeightView slice(int64_t index) const {
    return {scheme, {shape[1], shape[2]}, row_blocks(index * shape[1], shape[1])};
  }
};

}  // namespace qat
