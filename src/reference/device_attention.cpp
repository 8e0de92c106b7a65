#include "reference/device_attention.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "core/float_types.h"
#include "quant/grid.h"
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
  return {shape.window == 0 ? 0 : std::max<int64_t>(0, query - shape.window + 1), query + 1};
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
  constexpr int64_t kBlockBytes = 2 + grid::kBlock;
  const int64_t blocks = codes.columns / grid::kBlock;
  for (int64_t b = 0; b < blocks; ++b) {
    const std::byte* block = stored.data() + b * kBlockBytes;
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
    const auto key = cache.key(range.begin + i, head);
    if (quantized) {
      unpack_key(key, i, decoded.key_codes);
    } else {
      decode_cached(cache.type(), key, row_of(decoded.keys, i));
    }
    decode_cached(cache.type(), cache.value(range.begin + i, head), row_of(decoded.values, i));
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
void attend_one_by_one(const float* query_values, const DecodedHead& head, CacheType type, Visible range,
                       std::span<float> result) {
  const auto width = static_cast<int64_t>(result.size());
  const Query query(query_values, type, width);
  const bool half = type == CacheType::F16;
  std::fill(result.begin(), result.end(), 0.0f);
  float sum = 0.0f;
  float largest = kMinusInfinity;
  for (int64_t position = range.begin; position < range.end; ++position) {
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
  const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
  for (float& value : result) value *= inverse;
}

// Tiles of 64 cells from cell 0 on; scores and sums in fp32, one fused multiply-add after another.
void attend_in_tiles(const float* query, const DecodedHead& head, const Matrix& transposed_keys, Visible range,
                     std::span<float> result) {
  const auto width = static_cast<int64_t>(result.size());
  std::fill(result.begin(), result.end(), 0.0f);
  float sum = 0.0f;
  float largest = kMinusInfinity;
  for (int64_t tile = range.begin / kTileKeys * kTileKeys; tile < range.end; tile += kTileKeys) {
    std::array<float, kTileKeys> scores;
    scores.fill(kMinusInfinity);
    const int64_t begin = std::max(tile, range.begin);
    const int64_t count = std::min(tile + kTileKeys, range.end) - begin;
    float* first = scores.data() + (begin - tile);
    std::fill_n(first, count, 0.0f);
    for (int64_t d = 0; d < width; ++d) {
      add_scaled(first, transposed_keys.data() + d * transposed_keys.cols() + (begin - head.first), query[d], count,
                 false);
    }
    const float tile_largest = *std::max_element(scores.begin(), scores.end());
    if (tile_largest > largest) {
      const float rescale = std::exp(largest - tile_largest);
      for (float& value : result) value *= rescale;
      sum *= rescale;
      largest = tile_largest;
    }
    sum = static_cast<float>(static_cast<double>(sum) + soft_max_exponentials(scores, largest));
    for (int64_t i = 0; i < count; ++i) add_scaled(result.data(), head.value(begin + i), first[i], width, false);
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
    const Visible range = visible_keys(shape, row);
    for (int64_t head = key_value_head * group; head < (key_value_head + 1) * group; ++head) {
      const float* query = queries.data() + row * queries.cols() + head * shape.head_dim;
      const auto mixed =
          row_of(result, row).subspan(static_cast<size_t>(head * shape.head_dim), static_cast<size_t>(shape.head_dim));
      if (tiled) {
        attend_in_tiles(query, decoded, transposed_keys, range, mixed);
      } else {
        attend_one_by_one(query, decoded, cache.type(), range, mixed);
      }
    }
  }
}

}  // namespace qat::device
