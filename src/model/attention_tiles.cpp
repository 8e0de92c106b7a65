#include "model/attention_tiles.h"

#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <limits>

#include "model/attention_kernels.h"
#include "model/bfloat16_tensors.h"

namespace qat::attention_tiles {

namespace {

constexpr int64_t kMostQueries = 128;  // columns of a tile

// to[column][row] = from[row][column]
template <class Value>
void transpose(const Value* from, int64_t rows, int64_t columns, Value* to) {
  constexpr int64_t kBlock = 16;  // as many cache lines on either side
  for (int64_t row = 0; row < rows; row += kBlock) {
    for (int64_t column = 0; column < columns; column += kBlock) {
      for (int64_t c = column; c < std::min(columns, column + kBlock); ++c) {
        for (int64_t r = row; r < std::min(rows, row + kBlock); ++r) to[c * rows + r] = from[r * columns + c];
      }
    }
  }
}

const at::BFloat16* for_library(const BFloat16* values) { return reinterpret_cast<const at::BFloat16*>(values); }

}  // namespace

Shape shape_of(const at::Tensor& query, const at::Tensor& key, double scale) {
  Shape shape{query.size(1), key.size(1), query.size(1) / key.size(1), query.size(2), 0, 0, static_cast<float>(scale)};
  shape.positions = std::max<int64_t>(1, kMostQueries / shape.group);
  const int64_t step = attention_kernels::kColumnsOfVectors;
  shape.columns = (shape.positions * shape.group + step - 1) / step * step;
  return shape;
}

Tiling tiling_of(const Shape& shape, const AttentionReach& reach) {
  Tiling tiling;
  for (size_t d = 0; d + 1 < reach.document_starts.size(); ++d) {
    const int64_t begin = reach.document_starts[d];
    const int64_t end = reach.document_starts[d + 1];
    const int64_t first_tile = tiling.key_tiles();
    for (int64_t first = begin; first < end; first += kKeys) {
      tiling.keys.push_back({first, std::min(end, first + kKeys)});
    }
    for (int64_t first = begin; first < end; first += shape.positions) {
      const int64_t last = std::min(end, first + shape.positions) - 1;
      const int64_t oldest = reach.window == 0 ? begin : std::max(begin, first - reach.window + 1);
      tiling.queries.push_back(
          {first, last + 1, first_tile + (oldest - begin) / kKeys, first_tile + (last - begin) / kKeys + 1});
    }
  }
  return tiling;
}

KeyTiles::KeyTiles(const at::Tensor& x, const Tiling& tiling, Layout layout)
    : tiles_(tiling.key_tiles()), elements_(kKeys * x.size(2)) {
  const int64_t heads = x.size(1);
  const int64_t head_dim = x.size(2);
  values_ = at::empty({heads * tiles_ * elements_}, x.options());
  at::parallel_for(0, heads * tiles_, 1, [&](int64_t begin, int64_t end) {
    std::vector<BFloat16> rows(static_cast<size_t>(elements_));
    for (int64_t i = begin; i < end; ++i) {
      const auto& [first, last] = tiling.keys[static_cast<size_t>(i % tiles_)];
      auto next = rows.begin();
      for (int64_t position = first; position < last; ++position) {
        next = std::copy_n(bfloat16_data(x) + (position * heads + i / tiles_) * head_dim, head_dim, next);
      }
      std::fill(next, rows.end(), BFloat16{0});
      BFloat16* tile = mutable_bfloat16_data(values_) + i * elements_;
      if (layout == Layout::Transposed) {
        transpose(rows.data(), kKeys, head_dim, tile);
      } else {
        std::copy(rows.begin(), rows.end(), tile);
      }
    }
  });
}

const BFloat16* KeyTiles::of(int64_t head, int64_t tile) const {
  return bfloat16_data(values_) + (head * tiles_ + tile) * elements_;
}

void load_rows(const Shape& shape, const at::Tensor& x, const QueryTile& tile, int64_t key_value_head,
               std::vector<BFloat16>& rows) {
  const int64_t width = shape.group * shape.head_dim;
  const BFloat16* from = bfloat16_data(x) + key_value_head * width;
  auto next = rows.begin();
  for (int64_t position = tile.first; position < tile.end; ++position) {
    next = std::copy_n(from + position * shape.heads * shape.head_dim, width, next);
  }
  std::fill(next, rows.end(), BFloat16{0});
}

void store_rows(const Shape& shape, const std::vector<BFloat16>& rows, const QueryTile& tile, int64_t key_value_head,
                const at::Tensor& x) {
  const int64_t width = shape.group * shape.head_dim;
  BFloat16* to = mutable_bfloat16_data(x) + key_value_head * width;
  for (int64_t position = tile.first; position < tile.end; ++position) {
    std::copy_n(rows.data() + (position - tile.first) * width, width, to + position * shape.heads * shape.head_dim);
  }
}

void to_pairs(const Shape& shape, const std::vector<BFloat16>& rows, std::vector<uint32_t>& pairs) {
  transpose(reinterpret_cast<const uint32_t*>(rows.data()), shape.columns, shape.head_dim / 2, pairs.data());
}

void from_pairs(const Shape& shape, const std::vector<uint32_t>& pairs, std::vector<BFloat16>& rows) {
  transpose(pairs.data(), shape.head_dim / 2, shape.columns, reinterpret_cast<uint32_t*>(rows.data()));
}

void hide_scores(const Shape& shape, const AttentionReach& reach, const QueryTile& queries, const KeyTile& keys,
                 float* scores) {
  constexpr float kHidden = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < kKeys; ++i) {
    // Queries are ordered by position: those that see a key are neighbours.
    const int64_t key = keys.first + i;
    const int64_t first = std::clamp(key, queries.first, queries.end);
    const int64_t end = reach.window == 0 ? queries.end : std::clamp(key + reach.window, first, queries.end);
    float* row = scores + i * shape.columns;
    std::fill(row, row + (first - queries.first) * shape.group, kHidden);
    std::fill(row + (end - queries.first) * shape.group, row + shape.columns, kHidden);
  }
}

void multiply(int64_t rows, int64_t columns, int64_t depth, const BFloat16* a, int64_t stride_of_a, const uint32_t* b,
              bool add, float* c) {
  at::native::cpublas::brgemm(rows, columns, depth, stride_of_a, columns, columns, add, for_library(a),
                              reinterpret_cast<const at::BFloat16*>(b), c);
}

void for_tiles(int64_t first, int64_t end, const std::function<void(std::span<const int64_t>)>& work) {
  std::vector<int64_t> order;
  for (int64_t low = first, high = end - 1; low <= high; ++low, --high) {
    order.push_back(low);
    if (low < high) order.push_back(high);
  }
  at::parallel_for(0, end - first, 1, [&](int64_t from, int64_t to) {
    work(std::span(order).subspan(static_cast<size_t>(from), static_cast<size_t>(to - from)));
    at::native::cpublas::brgemm_release();
  });
}

}  // namespace qat::attention_tiles
