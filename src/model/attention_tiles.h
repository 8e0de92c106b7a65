// How attention in BF16 is cut into tiles, and how operands become sides of block products. A tile of scores has kKeys
// rows, one for each key, and a column for each query: the heads that share a key-value head, position after position.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/float_types.h"
#include "model/attention.h"

namespace qat::attention_tiles {

inline constexpr int64_t kKeys = 64;

struct Shape {
  int64_t heads, key_value_heads, group, head_dim;
  int64_t positions;  // of a tile of queries
  int64_t columns;    // positions x group, rounded up
  float scale;
};

// Positions of one document and the tiles of keys that they see.
struct QueryTile {
  int64_t first, end;
  int64_t first_keys, end_keys;
};

struct KeyTile {
  int64_t first, end;  // at most kKeys positions of one document
};

// In order of positions. No tile spans documents.
struct Tiling {
  std::vector<QueryTile> queries;
  std::vector<KeyTile> keys;
  int64_t query_tiles() const { return static_cast<int64_t>(queries.size()); }
  int64_t key_tiles() const { return static_cast<int64_t>(keys.size()); }
};

Shape shape_of(const at::Tensor& query, const at::Tensor& key, double scale);
Tiling tiling_of(const Shape& shape, const AttentionReach& reach);

// Tiles of keys or values of every head, whole ones: what a document leaves empty is zero.
class KeyTiles {
 public:
  enum class Layout { Rows, Transposed };  // [kKeys, head_dim] or [head_dim, kKeys]
  KeyTiles(const at::Tensor& x, const Tiling& tiling, Layout layout);
  const BFloat16* of(int64_t head, int64_t tile) const;

 private:
  int64_t tiles_, elements_;
  at::Tensor values_;
};

// Rows [columns, head_dim] of the queries of a tile that share a key-value head. Columns without a query are zero.
void load_rows(const Shape& shape, const at::Tensor& x, const QueryTile& tile, int64_t key_value_head,
               std::vector<BFloat16>& rows);
void store_rows(const Shape& shape, const std::vector<BFloat16>& rows, const QueryTile& tile, int64_t key_value_head,
                const at::Tensor& x);

// Such rows as pairs [head_dim / 2, columns], and back.
void to_pairs(const Shape& shape, const std::vector<BFloat16>& rows, std::vector<uint32_t>& pairs);
void from_pairs(const Shape& shape, const std::vector<uint32_t>& pairs, std::vector<BFloat16>& rows);

// -inf in a tile of scores where a query does not see a key.
void hide_scores(const Shape& shape, const AttentionReach& reach, const QueryTile& queries, const KeyTile& keys,
                 float* scores);

// c [rows, columns] = a [rows, depth] b [depth, columns], or c += it; b as pairs of rows. To be called in for_tiles().
void multiply(int64_t rows, int64_t columns, int64_t depth, const BFloat16* a, int64_t stride_of_a, const uint32_t* b,
              bool add, float* c);

// Calls work(numbers) on several threads for parts of the numbers first ... end - 1. Small and large ones come in turn,
// since late tiles of queries have more keys than early ones.
void for_tiles(int64_t first, int64_t end, const std::function<void(std::span<const int64_t>)>& work);

}  // namespace qat::attention_tiles
