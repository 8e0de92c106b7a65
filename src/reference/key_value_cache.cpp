#include "reference/key_value_cache.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/float_types.h"
#include "quant/grid.h"
#include "quant/key_value_block.h"
#include "quant/row_codec.h"

namespace qat {

namespace {

int64_t bytes_of_head(CacheType type, int64_t head_dim) {
  switch (type) {
    case CacheType::F32:
      return head_dim * 4;
    case CacheType::F16:
      return head_dim * 2;
    case CacheType::Q8_0:
      if (head_dim % grid::kBlock != 0) {
        fail("a q8_0 key-value cache needs head sizes that ", grid::kBlock, " divides, found ", head_dim,
             "; use an f16 cache");
      }
      return key_value_bytes(head_dim);
    case CacheType::Int8:
      return head_dim;
  }
  QAT_CHECK(false);
  return 0;
}

}  // namespace

KeyValueCache::KeyValueCache(CacheType type, int64_t heads, int64_t head_dim, int64_t window, CacheScales scales)
    : type_(type),
      heads_(heads),
      head_dim_(head_dim),
      window_(window),
      scales_(scales),
      head_bytes_(bytes_of_head(type, head_dim)) {
  QAT_CHECK(type != CacheType::Int8 || (scales.key > 0 && scales.value > 0));
}

std::span<const std::byte> KeyValueCache::part(const std::vector<std::byte>& rows, int64_t position,
                                               int64_t head) const {
  QAT_CHECK(position >= first_ && position < end_);
  const int64_t offset = ((position - first_) * heads_ + head) * head_bytes_;
  return {rows.data() + offset, static_cast<size_t>(head_bytes_)};
}

void KeyValueCache::store(const Matrix& rows, float scale, std::vector<std::byte>& bytes) const {
  const size_t start = bytes.size();
  bytes.resize(start + static_cast<size_t>(rows.rows() * heads_ * head_bytes_));
  std::byte* target = bytes.data() + start;
  const std::span<const float> values(rows.data(), static_cast<size_t>(rows.size()));
  switch (type_) {
    case CacheType::F32:
      std::memcpy(target, values.data(), values.size_bytes());
      break;
    case CacheType::F16:
      for (size_t i = 0; i < values.size(); ++i) {
        const Float16 rounded = to_float16(values[i]);
        std::memcpy(target + 2 * i, &rounded, sizeof(rounded));
      }
      break;
    case CacheType::Q8_0:
      encode_key_values(values, target);
      break;
    case CacheType::Int8:
      encode_groups(Scheme::Int8, values, {&scale, 1}, static_cast<int64_t>(values.size()),
                    {reinterpret_cast<int8_t*>(target), values.size()});
      break;
  }
}

void KeyValueCache::drop_unseen() {
  // Half of the rows must be out of sight, so that each row is moved at most once on average.
  const int64_t unseen = end_ - window_ + 1 - first_;
  if (window_ == 0 || unseen < std::max<int64_t>(window_, 64)) return;
  const auto bytes = static_cast<std::ptrdiff_t>(unseen * heads_ * head_bytes_);
  keys_.erase(keys_.begin(), keys_.begin() + bytes);
  values_.erase(values_.begin(), values_.begin() + bytes);
  first_ += unseen;
}

void KeyValueCache::append(const Matrix& keys, const Matrix& values) {
  drop_unseen();
  store(keys, scales_.key, keys_);
  store(values, scales_.value, values_);
  end_ += keys.rows();
}

std::span<std::byte> KeyValueCache::newest(std::vector<std::byte>& bytes, int64_t rows) const {
  const auto size = static_cast<size_t>(rows * heads_ * head_bytes_);
  QAT_CHECK(size <= bytes.size());
  return std::span(bytes).last(size);
}

void KeyValueCache::decode_key(int64_t position, int64_t head, std::span<float> values) const {
  decode_cached(type_, key(position, head), scales_.key, values);
}

void KeyValueCache::decode_value(int64_t position, int64_t head, std::span<float> values) const {
  decode_cached(type_, value(position, head), scales_.value, values);
}

void decode_cached(CacheType type, std::span<const std::byte> stored, float scale, std::span<float> values) {
  switch (type) {
    case CacheType::F32:
      std::memcpy(values.data(), stored.data(), values.size_bytes());
      break;
    case CacheType::F16:
      for (size_t i = 0; i < values.size(); ++i) {
        Float16 half;
        std::memcpy(&half, stored.data() + 2 * i, sizeof(half));
        values[i] = to_float(half);
      }
      break;
    case CacheType::Q8_0:
      decode_key_values(stored.data(), values);
      break;
    case CacheType::Int8:
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = grid::integer_value(static_cast<int8_t>(stored[i]), scale);
      }
      break;
  }
}

}  // namespace qat
