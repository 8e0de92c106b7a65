// Keys and values of one layer, a row per position, in the type that the cache of a device has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "reference/matrix.h"

namespace qat {

enum class CacheType { F32, F16, Q8_0 };

// Turns groups of `size` values (a power of two) by the orthonormal Walsh-Hadamard matrix; twice gives the input again.
// llama.cpp does this to queries, keys and values before it quantizes them (ggml_compute_forward_fwht).
void rotate_hadamard(std::span<float> values, int64_t size);

// Group sizes of that rotation, 0 = none. A quantized cache is rotated in all layers or none: if 64 divides the head
// size of the first layer. Queries and keys then turn in the largest power of two that divides the head size, values in
// 64 (llama-kv-cache.cpp; its log names n_rot_k and n_rot_v).
struct CacheRotation {
  int64_t key = 0;
  int64_t value = 0;
};
CacheRotation cache_rotation(CacheType type, int64_t first_layer_head_dim, int64_t head_dim);

class KeyValueCache {
 public:
  // `width` values per position for keys and as many for values. `window` > 0: positions that no later query can see
  // are dropped. Throws Error if Q8_0 blocks do not fit the heads.
  KeyValueCache(CacheType type, int64_t heads, int64_t head_dim, int64_t window);

  // Appends rows [positions, width], already rotated.
  void append(const Matrix& keys, const Matrix& values);

  CacheType type() const { return type_; }
  int64_t head_dim() const { return head_dim_; }
  int64_t first() const { return first_; }  // the oldest position still held
  int64_t end() const { return end_; }      // one past the newest

  // Stored bytes of one head at one position.
  std::span<const std::byte> key(int64_t position, int64_t head) const { return part(keys_, position, head); }
  std::span<const std::byte> value(int64_t position, int64_t head) const { return part(values_, position, head); }

 private:
  std::span<const std::byte> part(const std::vector<std::byte>& rows, int64_t position, int64_t head) const;
  void store(const Matrix& rows, std::vector<std::byte>& bytes) const;
  void drop_unseen();

  CacheType type_;
  int64_t heads_;
  int64_t head_dim_;
  int64_t window_;
  int64_t head_bytes_;
  int64_t first_ = 0;
  int64_t end_ = 0;
  std::vector<std::byte> keys_;
  std::vector<std::byte> values_;
};

// Decodes what KeyValueCache stores for one head.
void decode_cached(CacheType type, std::span<const std::byte> stored, std::span<float> values);

}  // namespace qat
