#include "reference/device_attention.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "core/float_types.h"
#include "quant/grid.h"
#include "quant/key_value_block.h"
#include "reference/device_activations.h"
#include "reference/device_dots.h"

namespace qat::device {

namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr int64_t kTileKeys = 64;

// 2^(x log2 e): the whole part of the exponent goes into the bits, the rest through a polynomial of degree 5.
float vector_exp(float x) {
  constexpr float kRounding = 0x1.8p23f;
  const float shifted = std::fma(x, 0x1.715476p+0f, kRounding);
  const float whole = shifted - kRounding;
  const float rest = std::fma(-whole, 0x1.7f7d1cp-20f, std::fma(-whole, 0x1.62e4p-1f, x));
  if (whole < -126.0f) return x < -104.0f ? 0.0f : std::exp(x);
  const float power = std::bit_cast<float>((std::bit_cast<uint32_t>(shifted) << 23) + 0x3f800000u);
  const float square = rest * rest;
  const float high = std::fma(0x1.0e4020p-7f, rest, 0x1.573e2ep-5f);
  const float low = std::fma(0x1.555e66p-3f, rest, 0x1.fffdb6p-2f);
  const float polynomial = std::fma(std::fma(high, square, low), square, 0x1.ffffecp-1f * rest);
  return std::fma(power, polynomial, power);
}

// The keys that one query sees: [begin, end).
struct Visible {
  int64_t begin;
  int64_t end;
};
Visible visible_keys(const AttentionShape& shape, int64_t row) {
  const int64_t query = shape.first_position + row;
  return {shape.first_visible(query), query + 1};
}

// Consecutive positions in consecutive cells of the cache.
struct Run {
  int64_t cell;
  int64_t position;
  int64_t count;

  // The part whose cells are in [first, end).
  Run within(int64_t first, int64_t end) const {
    const int64_t begin = std::max(first, cell);
    return {begin, position + begin - cell, std::max<int64_t>(0, std::min(end, cell + count) - begin)};
  }
};

// The cells of visible keys in cell order. A sliding cache has room for the window and a micro-batch of 512, in
// multiples of 256, and starts over when it is full: the newest keys then come first (llama_kv_cache_iswa).
std::array<Run, 2> runs_of(const AttentionShape& shape, Visible range) {
  const int64_t cells = shape.window == 0 ? range.end : (shape.window + 512 + 255) / 256 * 256;
  const int64_t lap = (range.end - 1) / cells * cells;
  if (range.begin >= lap) return {Run{range.begin - lap, range.begin, range.end - range.begin}, Run{0, 0, 0}};
  return {Run{0, lap, range.end - lap}, Run{range.begin - (lap - cells), range.begin, lap - range.begin}};
}

// Keys and values of one head, decoded: a row per position from `first` on.
struct DecodedHead {
  int64_t first;
  Matrix keys;
  Matrix values;
  QuantizedRows key_codes;  // instead of keys where the cache is Q8_0

  const float* key(int64_t position) const { return keys.data() + (position - first) * keys.cols(); }
  const float* value(int64_t position) const { return values.data() + (position - first) * values.cols(); }
};

void unpack_key(std::span<const std::byte> stored, int64_t row, QuantizedRows& codes) {
  const int64_t blocks = codes.columns / grid::kBlock;
  for (int64_t b = 0; b < blocks; ++b) {
    const std::byte* block = stored.data() + b * kKeyValueBlockBytes;
    const auto bits =
        static_cast<uint16_t>(std::to_integer<unsigned>(block[0]) | std::to_integer<unsigned>(block[1]) << 8);
    codes.scales[static_cast<size_t>(row * blocks + b)] = to_float(Float16{bits});
    for (int64_t i = 0; i < grid::kBlock; ++i) {
      const int64_t place = row * codes.columns + b * grid::kBlock + code_place(CodeOrder::Quads, i);
      codes.codes[static_cast<size_t>(place)] = static_cast<int8_t>(block[2 + i]);
    }
  }
}

DecodedHead decode_head(const KeyValueCache& cache, int64_t head, Visible range) {
  const int64_t count = range.end - range.begin;
  DecodedHead decoded{range.begin, {}, Matrix(count, cache.head_dim()), {}};
  const bool quantized = cache.type() == CacheType::Q8_0;
  if (quantized) {
    decoded.key_codes = {count, cache.head_dim(), grid::kBlock, {}, {}, {}};
    decoded.key_codes.codes.resize(static_cast<size_t>(count * cache.head_dim()));
    decoded.key_codes.scales.resize(static_cast<size_t>(count * cache.head_dim() / grid::kBlock));
  } else {
    decoded.keys.resize(count, cache.head_dim());
  }
  for (int64_t i = 0; i < count; ++i) {
    if (quantized) {
      unpack_key(cache.key(range.begin + i, head), i, decoded.key_codes);
    } else {
      cache.decode_key(range.begin + i, head, row_of(decoded.keys, i));
    }
    cache.decode_value(range.begin + i, head, row_of(decoded.values, i));
  }
  return decoded;
}

// A query in the form that the dot product with keys takes.
class Query {
 public:
  Query(const float* values, CacheType type, int64_t head_dim) : type_(type), values_(1, head_dim) {
    for (int64_t i = 0; i < head_dim; ++i) {
      values_(0, i) = type == CacheType::F16 ? to_float(to_float16(values[i])) : values[i];
    }
    if (type != CacheType::Q8_0) return;
    const QuantizedRows codes = quantize_q8_0(values_, CodeOrder::Quads);
    codes_ = {head_dim / grid::kBlock, codes.codes, codes.scales};
  }
  float dot(const DecodedHead& head, int64_t position) const {
    if (type_ == CacheType::Q8_0) return dot_codes(codes_, head.key_codes, position - head.first);
    return dot_floats(head.key(position), values_.data(), values_.cols(), SumOrder::FourVectors,
                      type_ == CacheType::F16);
  }

 private:
  CacheType type_;
  Matrix values_;
  CodeRow codes_;
};

// One key after another with a running maximum.
void attend_one_by_one(const float* query_values, const DecodedHead& head, CacheType type,
                       const std::array<Run, 2>& runs, std::span<float> result) {
  const auto width = static_cast<int64_t>(result.size());
  const Query query(query_values, type, width);
  const bool half = type == CacheType::F16;
  std::fill(result.begin(), result.end(), 0.0f);
  float sum = 0.0f;
  float largest = kMinusInfinity;
  for (const Run& run : runs) {
    for (int64_t position = run.position; position < run.position + run.count; ++position) {
      const float score = query.dot(head, position);
      float rescale = 1.0f;
      float weight = 1.0f;
      if (score > largest) {
        rescale = std::exp(largest - score);
        largest = score;
        for (float& value : result) value = half ? to_float(to_float16(value * rescale)) : value * rescale;
      } else {
        weight = std::exp(score - largest);
      }
      add_scaled(result.data(), head.value(position), weight, width, half);
      sum = sum * rescale + weight;
    }
  }
  const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
  for (float& value : result) value *= inverse;
}

// Tiles of 64 cells from cell 0 on; scores and sums in fp32, one fused multiply-add after another.
void attend_in_tiles(const float* query, const DecodedHead& head, const Matrix& transposed_keys,
                     const std::array<Run, 2>& runs, std::span<float> result) {
  const auto width = static_cast<int64_t>(result.size());
  const int64_t end = std::max(runs[0].cell + runs[0].count, runs[1].cell + runs[1].count);
  std::fill(result.begin(), result.end(), 0.0f);
  float sum = 0.0f;
  float largest = kMinusInfinity;
  for (int64_t tile = runs[0].cell / kTileKeys * kTileKeys; tile < end; tile += kTileKeys) {
    const std::array<Run, 2> parts{runs[0].within(tile, tile + kTileKeys), runs[1].within(tile, tile + kTileKeys)};
    std::array<float, kTileKeys> scores;
    scores.fill(kMinusInfinity);
    for (const Run& part : parts) {
      if (part.count == 0) continue;
      float* first = scores.data() + (part.cell - tile);
      std::fill_n(first, part.count, 0.0f);
      const float* keys = transposed_keys.data() + (part.position - head.first);
      for (int64_t d = 0; d < width; ++d)
        add_scaled(first, keys + d * transposed_keys.cols(), query[d], part.count, false);
    }
    const float tile_largest = *std::max_element(scores.begin(), scores.end());
    if (tile_largest == kMinusInfinity) continue;
    if (tile_largest > largest) {
      const float rescale = std::exp(largest - tile_largest);
      for (float& value : result) value *= rescale;
      sum *= rescale;
      largest = tile_largest;
    }
    sum = static_cast<float>(static_cast<double>(sum) + soft_max_exponentials(scores, largest));
    for (const Run& part : parts) {
      for (int64_t i = 0; i < part.count; ++i) {
        add_scaled(result.data(), head.value(part.position + i), scores[static_cast<size_t>(part.cell - tile + i)],
                   width, false);
      }
    }
  }
  const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
  for (float& value : result) value *= inverse;
}

}  // namespace

double soft_max_exponentials(std::span<float> values, float largest) {
  double sum = 0;
  size_t i = 0;
  for (; i + 8 <= values.size(); i += 8) {
    float* lanes = values.data() + i;
    for (size_t l = 0; l < 8; ++l) lanes[l] = vector_exp(lanes[l] - largest);
    sum += static_cast<double>(((lanes[4] + lanes[0]) + (lanes[6] + lanes[2])) +
                               ((lanes[5] + lanes[1]) + (lanes[7] + lanes[3])));
  }
  for (; i < values.size(); ++i) {
    values[i] = std::exp(values[i] - largest);
    sum += static_cast<double>(values[i]);
  }
  return sum;
}

void attend_group(const Matrix& queries, const KeyValueCache& cache, const AttentionShape& shape,
                  int64_t key_value_head, int64_t first_row, int64_t end_row, bool tiled, Matrix& result) {
  const Visible all{visible_keys(shape, first_row).begin, visible_keys(shape, end_row - 1).end};
  const DecodedHead decoded = decode_head(cache, key_value_head, all);
  const Matrix transposed_keys = tiled ? Matrix(decoded.keys.transpose()) : Matrix();
  const int64_t group = shape.heads / shape.key_value_heads;
  for (int64_t row = first_row; row < end_row; ++row) {
    const std::array<Run, 2> runs = runs_of(shape, visible_keys(shape, row));
    for (int64_t head = key_value_head * group; head < (key_value_head + 1) * group; ++head) {
      const float* query = queries.data() + row * queries.cols() + head * shape.head_dim;
      const auto mixed =
          row_of(result, row).subspan(static_cast<size_t>(head * shape.head_dim), static_cast<size_t>(shape.head_dim));
      if (tiled) {
        attend_in_tiles(query, decoded, transposed_keys, runs, mixed);
      } else {
        attend_one_by_one(query, decoded, cache.type(), runs, mixed);
      }
    }
  }
}

}  // namespace qat::device
