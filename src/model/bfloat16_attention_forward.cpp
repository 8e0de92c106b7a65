#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "model/attention_kernels.h"
#include "model/attention_tiles.h"
#include "model/bfloat16_attention.h"
#include "model/bfloat16_tensors.h"
#include "model/cpu_instructions.h"

namespace qat {

using namespace attention_tiles;

namespace {

// One tile of queries after the other, each against its tiles of keys: the softmax of what was seen so far is carried
// along with the values that it mixes.
class Forward {
 public:
  Forward(const Shape& shape, const AttentionReach& reach, const Tiling& tiling, const KeyTiles& keys,
          const KeyTiles& transposed_values)
      : shape_(shape),
        reach_(reach),
        tiling_(tiling),
        keys_(keys),
        values_(transposed_values),
        rows_(static_cast<size_t>(shape.columns * shape.head_dim)),
        pairs_(rows_.size() / 2),
        scores_(static_cast<size_t>(kKeys * shape.columns)),
        probabilities_(scores_.size() / 2),
        mixed_(rows_.size()),
        largest_(static_cast<size_t>(shape.columns)),
        sums_(largest_.size()),
        decays_(largest_.size()) {}

  void run(const at::Tensor& query, const QueryTile& tile, int64_t head, Attended& result) {
    load_rows(shape_, query, tile, head, rows_);
    to_pairs(shape_, rows_, pairs_);
    std::fill(largest_.begin(), largest_.end(), std::numeric_limits<float>::lowest());
    std::fill(sums_.begin(), sums_.end(), 0.0f);
    for (int64_t keys = tile.first_keys; keys < tile.end_keys; ++keys) {
      multiply(kKeys, shape_.columns, shape_.head_dim, keys_.of(head, keys), shape_.head_dim, pairs_.data(), false,
               scores_.data());
      hide_scores(shape_, reach_, tile, tiling_.keys[static_cast<size_t>(keys)], scores_.data());
      const bool decays =
          attention_kernels::add_scores(scores_.data(), kKeys, shape_.columns, shape_.scale,
                                        {largest_.data(), sums_.data(), decays_.data()}, probabilities_.data());
      const bool is_first = keys == tile.first_keys;
      if (decays && !is_first) {
        attention_kernels::scale_columns(mixed_.data(), shape_.head_dim, shape_.columns, decays_.data());
      }
      multiply(shape_.head_dim, shape_.columns, kKeys, values_.of(head, keys), kKeys, probabilities_.data(), !is_first,
               mixed_.data());
    }
    store_log_sums(tile, head, result.log_sums.mutable_data_ptr<float>());
    for (float& sum : sums_) sum = 1 / sum;
    attention_kernels::narrow_to_pairs(mixed_.data(), shape_.head_dim, shape_.columns, sums_.data(), pairs_.data());
    from_pairs(shape_, pairs_, rows_);
    store_rows(shape_, rows_, tile, head, result.output);
  }

 private:
  void store_log_sums(const QueryTile& tile, int64_t head, float* log_sums) const {
    size_t column = 0;
    for (int64_t position = tile.first; position < tile.end; ++position) {
      float* row = log_sums + position * shape_.heads + head * shape_.group;
      for (int64_t i = 0; i < shape_.group; ++i, ++column) row[i] = largest_[column] + std::log(sums_[column]);
    }
  }

  const Shape& shape_;
  const AttentionReach& reach_;
  const Tiling& tiling_;
  const KeyTiles& keys_;
  const KeyTiles& values_;
  std::vector<BFloat16> rows_;
  std::vector<uint32_t> pairs_;
  std::vector<float> scores_;
  std::vector<uint32_t> probabilities_;
  std::vector<float> mixed_;  // [head_dim, columns]
  std::vector<float> largest_, sums_, decays_;
};

}  // namespace

bool has_bfloat16_attention(const at::Tensor& query, const AttentionReach& reach) {
  return cpu_multiplies_bfloat16_blocks() && is_bfloat16_on_cpu(query) && reach.past == 0 && query.size(2) % 2 == 0;
}

Attended attend_in_bfloat16(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const AttentionReach& reach, double scale) {
  QAT_CHECK(has_bfloat16_attention(query, reach) && scale > 0);
  const Shape shape = shape_of(query, key, scale);
  const Tiling tiling = tiling_of(shape, reach);
  const KeyTiles keys(key, tiling, KeyTiles::Layout::Rows);
  const KeyTiles values(value, tiling, KeyTiles::Layout::Transposed);
  Attended result{at::empty_like(query), at::empty({query.size(0), shape.heads}, query.options().dtype(at::kFloat))};
  const int64_t tiles = tiling.query_tiles();
  for_tiles(0, tiles * shape.key_value_heads, [&](std::span<const int64_t> numbers) {
    Forward forward(shape, reach, tiling, keys, values);
    for (const int64_t i : numbers) {
      forward.run(query, tiling.queries[static_cast<size_t>(i % tiles)], i / tiles, result);
    }
  });
  return result;
}

}  // namespace qat
