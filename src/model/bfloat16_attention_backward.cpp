#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>

#include "model/attention_kernels.h"
#include "model/attention_tiles.h"
#include "model/bfloat16_attention.h"
#include "model/bfloat16_tensors.h"

namespace qat {

using namespace attention_tiles;

namespace {

constexpr int64_t kMostTiles = 16;  // of queries in a stretch
constexpr int64_t kFewestTiles = 4;
constexpr int64_t kMostScores = int64_t{1} << 22;  // of a stretch: 8 MiB, twice

// Neighbouring tiles of queries of one document, whose probabilities and gradients of scores are in memory at a time,
// and the tiles of keys that any of them sees.
struct Stretch {
  int64_t first, end;
  int64_t first_keys, end_keys;
};

std::vector<Stretch> stretches_of(const Shape& shape, const Tiling& tiling) {
  std::vector<Stretch> stretches;
  for (int64_t i = 0; i < tiling.query_tiles(); ++i) {
    const QueryTile& tile = tiling.queries[static_cast<size_t>(i)];
    if (!stretches.empty()) {
      Stretch& last = stretches.back();
      const bool is_same_document = tile.first_keys < last.end_keys;
      const int64_t tiles = i + 1 - last.first;
      const int64_t scores = tiles * shape.columns * (tile.end_keys - last.first_keys) * kKeys;
      if (is_same_document && tiles <= kMostTiles && (tiles <= kFewestTiles || scores <= kMostScores)) {
        last.end = i + 1;
        last.end_keys = tile.end_keys;
        continue;
      }
    }
    stretches.push_back({i, i + 1, tile.first_keys, tile.end_keys});
  }
  return stretches;
}

// What the tiles of queries of a stretch leave for the gradients of keys and values.
class StretchScores {
 public:
  StretchScores(const Shape& shape, const std::vector<Stretch>& stretches, const at::Tensor& like)
      : columns_(shape.columns), row_pairs_(shape.columns / 2 * shape.head_dim) {
    int64_t tiles = 0;
    int64_t key_tiles = 0;
    for (const Stretch& stretch : stretches) {
      tiles = std::max(tiles, stretch.end - stretch.first);
      key_tiles = std::max(key_tiles, stretch.end_keys - stretch.first_keys);
    }
    probabilities_ = at::empty({key_tiles * kKeys, tiles * columns_}, like.options());
    of_scores_ = at::empty_like(probabilities_);
    queries_ = at::empty({tiles, row_pairs_}, like.options().dtype(at::kInt));
    gradients_ = at::empty_like(queries_);
  }

  // Rows of the two matrices of scores, [keys, all columns of a stretch], are this far apart.
  int64_t stride() const { return probabilities_.size(1); }
  BFloat16* probabilities(int64_t keys, int64_t tile) const { return place(probabilities_, keys, tile); }
  BFloat16* of_scores(int64_t keys, int64_t tile) const { return place(of_scores_, keys, tile); }
  // Rows of a tile of queries, and of the gradient of its output, as pairs [columns / 2, head_dim].
  uint32_t* query_pairs(int64_t tile) const { return place(queries_, tile); }
  uint32_t* gradient_pairs(int64_t tile) const { return place(gradients_, tile); }

 private:
  BFloat16* place(const at::Tensor& scores, int64_t keys, int64_t tile) const {
    return mutable_bfloat16_data(scores) + keys * kKeys * stride() + tile * columns_;
  }
  uint32_t* place(const at::Tensor& pairs, int64_t tile) const {
    return reinterpret_cast<uint32_t*>(pairs.mutable_data_ptr<int32_t>()) + tile * row_pairs_;
  }

  int64_t columns_, row_pairs_;
  at::Tensor probabilities_, of_scores_;
  at::Tensor queries_, gradients_;
};

struct Tiles {
  Tiling tiling;
  KeyTiles keys, transposed_keys, values;
};

// The gradient of one tile of queries after the other, and what each leaves for its stretch.
class QueryBackward {
 public:
  QueryBackward(const Shape& shape, const AttentionReach& reach, const Tiles& tiles, const AttentionOperands& operands)
      : shape_(shape),
        reach_(reach),
        tiles_(tiles),
        operands_(operands),
        rows_(static_cast<size_t>(shape.columns * shape.head_dim)),
        gradient_rows_(rows_.size()),
        query_pairs_(rows_.size() / 2),
        gradient_pairs_(rows_.size() / 2),
        scores_(static_cast<size_t>(kKeys * shape.columns)),
        of_probabilities_(scores_.size()),
        score_pairs_(scores_.size() / 2),
        of_query_(rows_.size()),
        log_sums_(static_cast<size_t>(shape.columns)),
        dots_(log_sums_.size()),
        ones_(log_sums_.size(), 1.0f) {}

  void run(const Stretch& stretch, int64_t number, int64_t head, const StretchScores& left,
           const at::Tensor& of_query) {
    const QueryTile& tile = tiles_.tiling.queries[static_cast<size_t>(number)];
    const int64_t place = number - stretch.first;
    load(tile, head);
    attention_kernels::pair_rows(rows_.data(), shape_.columns, shape_.head_dim, left.query_pairs(place));
    attention_kernels::pair_rows(gradient_rows_.data(), shape_.columns, shape_.head_dim, left.gradient_pairs(place));
    for (int64_t keys = tile.first_keys; keys < tile.end_keys; ++keys) {
      multiply(kKeys, shape_.columns, shape_.head_dim, tiles_.keys.of(head, keys), shape_.head_dim, query_pairs_.data(),
               false, scores_.data());
      hide_scores(shape_, reach_, tile, tiles_.tiling.keys[static_cast<size_t>(keys)], scores_.data());
      multiply(kKeys, shape_.columns, shape_.head_dim, tiles_.values.of(head, keys), shape_.head_dim,
               gradient_pairs_.data(), false, of_probabilities_.data());
      const int64_t keys_place = keys - stretch.first_keys;
      attention_kernels::differentiate_scores(scores_.data(), of_probabilities_.data(), kKeys, shape_.columns,
                                              shape_.scale, log_sums_.data(), dots_.data(),
                                              {left.probabilities(keys_place, place), left.of_scores(keys_place, place),
                                               left.stride(), score_pairs_.data()});
      multiply(shape_.head_dim, shape_.columns, kKeys, tiles_.transposed_keys.of(head, keys), kKeys,
               score_pairs_.data(), keys > tile.first_keys, of_query_.data());
    }
    attention_kernels::narrow_to_pairs(of_query_.data(), shape_.head_dim, shape_.columns, ones_.data(),
                                       query_pairs_.data());
    from_pairs(shape_, query_pairs_, rows_);
    store_rows(shape_, rows_, tile, head, of_query);
  }

 private:
  void load(const QueryTile& tile, int64_t head) {
    load_rows(shape_, operands_.result.output, tile, head, rows_);
    load_rows(shape_, operands_.gradient, tile, head, gradient_rows_);
    for (int64_t i = 0; i < shape_.columns; ++i) {
      dots_[static_cast<size_t>(i)] = attention_kernels::dot(
          rows_.data() + i * shape_.head_dim, gradient_rows_.data() + i * shape_.head_dim, shape_.head_dim);
    }
    std::fill(log_sums_.begin(), log_sums_.end(), 0.0f);
    const auto* log_sums = operands_.result.log_sums.const_data_ptr<float>() + head * shape_.group;
    for (int64_t position = tile.first; position < tile.end; ++position) {
      std::copy_n(log_sums + position * shape_.heads, shape_.group,
                  log_sums_.begin() + (position - tile.first) * shape_.group);
    }
    load_rows(shape_, operands_.query, tile, head, rows_);
    to_pairs(shape_, rows_, query_pairs_);
    to_pairs(shape_, gradient_rows_, gradient_pairs_);
  }

  const Shape& shape_;
  const AttentionReach& reach_;
  const Tiles& tiles_;
  const AttentionOperands& operands_;
  std::vector<BFloat16> rows_, gradient_rows_;
  std::vector<uint32_t> query_pairs_, gradient_pairs_;
  std::vector<float> scores_, of_probabilities_;
  std::vector<uint32_t> score_pairs_;
  std::vector<float> of_query_;  // [head_dim, columns]
  std::vector<float> log_sums_, dots_, ones_;
};

// fp32 gradients of the keys or values of one head, tiles of [kKeys, head_dim].
class KeyGradients {
 public:
  KeyGradients(const Shape& shape, const Tiling& tiling, const at::Tensor& like)
      : head_dim_(shape.head_dim),
        tiling_(tiling),
        sums_(at::empty({tiling.key_tiles(), kKeys, shape.head_dim}, like.options().dtype(at::kFloat))) {}

  void clear() { sums_.zero_(); }

  // Adds scores [kKeys, depth] x rows [depth, head_dim].
  void add(int64_t tile, const BFloat16* scores, int64_t stride, int64_t depth, const uint32_t* row_pairs) const {
    multiply(kKeys, head_dim_, depth, scores, stride, row_pairs, true, sums_.mutable_data_ptr<float>() + place(tile));
  }

  void store(int64_t head, const at::Tensor& gradient) const {
    const int64_t heads = gradient.size(1);
    for (int64_t tile = 0; tile < tiling_.key_tiles(); ++tile) {
      const float* from = sums_.const_data_ptr<float>() + place(tile);
      const auto& [first, end] = tiling_.keys[static_cast<size_t>(tile)];
      for (int64_t position = first; position < end; ++position, from += head_dim_) {
        BFloat16* to = mutable_bfloat16_data(gradient) + (position * heads + head) * head_dim_;
        std::transform(from, from + head_dim_, to, [](float value) { return to_bfloat16(value); });
      }
    }
  }

 private:
  int64_t place(int64_t tile) const { return tile * kKeys * head_dim_; }

  int64_t head_dim_;
  const Tiling& tiling_;
  at::Tensor sums_;
};

// The tiles of queries of a stretch that see a tile of keys are neighbours, since both are in order.
void add_key_gradients(const Shape& shape, const Tiling& tiling, const Stretch& stretch, int64_t keys,
                       const StretchScores& left, const KeyGradients& of_key, const KeyGradients& of_value) {
  const auto queries = [&](int64_t tile) -> const QueryTile& { return tiling.queries[static_cast<size_t>(tile)]; };
  int64_t first = stretch.first;
  while (queries(first).end_keys <= keys) ++first;
  int64_t end = first;
  while (end < stretch.end && queries(end).first_keys <= keys) ++end;
  const int64_t depth = (end - first) * shape.columns;
  const int64_t place = first - stretch.first;
  const int64_t keys_place = keys - stretch.first_keys;
  of_key.add(keys, left.of_scores(keys_place, place), left.stride(), depth, left.query_pairs(place));
  of_value.add(keys, left.probabilities(keys_place, place), left.stride(), depth, left.gradient_pairs(place));
}

}  // namespace

AttentionGradients differentiate_in_bfloat16(const AttentionOperands& operands, const AttentionReach& reach,
                                             double scale) {
  const auto& [query, key, value, forward, gradient] = operands;
  const Shape shape = shape_of(query, key, scale);
  const Tiling tiling = tiling_of(shape, reach);
  const Tiles tiles{tiling, KeyTiles(key, tiling, KeyTiles::Layout::Rows),
                    KeyTiles(key, tiling, KeyTiles::Layout::Transposed),
                    KeyTiles(value, tiling, KeyTiles::Layout::Rows)};
  const std::vector<Stretch> stretches = stretches_of(shape, tiling);
  const StretchScores left(shape, stretches, query);
  KeyGradients of_key(shape, tiling, key);
  KeyGradients of_value(shape, tiling, value);
  AttentionGradients result{at::empty_like(query), at::empty_like(key), at::empty_like(value)};
  for (int64_t head = 0; head < shape.key_value_heads; ++head) {
    of_key.clear();
    of_value.clear();
    for (const Stretch& stretch : stretches) {
      for_tiles(stretch.first, stretch.end, [&](std::span<const int64_t> numbers) {
        QueryBackward backward(shape, reach, tiles, operands);
        for (const int64_t tile : numbers) backward.run(stretch, tile, head, left, result.query);
      });
      for_tiles(stretch.first_keys, stretch.end_keys, [&](std::span<const int64_t> numbers) {
        for (const int64_t keys : numbers) {
          add_key_gradients(shape, tiling, stretch, keys, left, of_key, of_value);
        }
      });
    }
    of_key.store(head, result.key);
    of_value.store(head, result.value);
  }
  return result;
}

}  // namespace qat
