// Keys and values of one layer, a row per position, in the type that the cache of a device has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "gemma4/static_scales.h"
#include "reference/matrix.h"

namespace qat {

enum class CacheType {
  F32,
  F16,
  Q8_0,
  Int8  // mobile models: one static scale for a layer's keys and one for its values
};

class KeyValueCache {
 public:
  // `window` > 0: positions that no later query can see are dropped. `scales` are of Int8 only, and positive. Throws
  // Error if Q8_0 blocks do not fit the heads.
  KeyValueCache(CacheType type, int64_t heads, int64_t head_dim, int64_t window, CacheScales scales = {});

  // Appends rows [positions, heads * head_dim], already rotated where the cache wants it (quant/key_value_rotation.h).
  void append(const Matrix& keys, const Matrix& values);

  // Stored bytes of the newest rows, to read or to replace.
  std::span<std::byte> newest_keys(int64_t rows) { return newest(keys_, rows); }
  std::span<std::byte> newest_values(int64_t rows) { return newest(values_, rows); }

  CacheType type() const { return type_; }
  int64_t head_dim() const { return head_dim_; }
  // 1 of caches that hold no codes with a static scale.
  CacheScales scales() const { return type_ == CacheType::Int8 ? scales_ : CacheScales{1, 1}; }
  int64_t held_positions() const { return end_ - first_; }

  // Stored bytes of one head at one position.
  std::span<const std::byte> key(int64_t position, int64_t head) const { return part(keys_, position, head); }
  std::span<const std::byte> value(int64_t position, int64_t head) const { return part(values_, position, head); }
  // What they stand for: head_dim() numbers.
  void decode_key(int64_t position, int64_t head, std::span<float> values) const;
  void decode_value(int64_t position, int64_t head, std::span<float> values) const;

 private:
  std::span<const std::byte> part(const std::vector<std::byte>& rows, int64_t position, int64_t head) const;
  void store(const Matrix& rows, float scale, std::vector<std::byte>& bytes) const;
  std::span<std::byte> newest(std::vector<std::byte>& bytes, int64_t rows) const;
  void drop_unseen();

  CacheType type_;
  int64_t heads_;
  int64_t head_dim_;
  int64_t window_;
  CacheScales scales_;
  int64_t head_bytes_;
  int64_t first_ = 0;
  int64_t end_ = 0;
  std::vector<std::byte> keys_;
  std::vector<std::byte> values_;
};

// Sees what a layer has just cached, and may replace it.
class CacheObserver {
 public:
  virtual ~CacheObserver() = default;
  // Rows of `positions` positions from `first_position` on.
  virtual void appended(int64_t layer, int64_t first_position, int64_t positions, std::span<std::byte> keys,
                        std::span<std::byte> values) = 0;
};

// Decodes what KeyValueCache stores for one head; `scale` is of Int8 only.
void decode_cached(CacheType type, std::span<const std::byte> stored, float scale, std::span<float> values);

}  // namespace qat
