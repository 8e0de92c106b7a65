// Fake quantization of keys and values as llama.cpp stores them in a q8_0 KV cache: where the head size is a multiple of 64 a
// normalized Hadamard rotation spreads outliers first (llama.cpp src/llama-kv-cache.cpp; gguf_q4_0.md section 3).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "model/projection.h"

namespace qat {

enum class CacheSide { Key, Value };

// Size of the Hadamard blocks that rotate a head before it is cached; 0 = no rotation. Keys: the largest power of two that
// divides the head size; values: 64.
int64_t rotation_size(CacheSide side, int64_t head_dim);

class KeyValueFakeQuantizer final : public ActivationTransform {
 public:
  KeyValueFakeQuantizer(std::string name, CacheSide side, int64_t head_dim);

  // [..., head_dim] -> the same, as read back from the cache; straight-through gradient.
  at::Tensor apply(const at::Tensor& activation) override;

  void set_enabled(bool enabled) { enabled_ = enabled; }
  bool has_fired() const { return fired_; }
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  int64_t rotation_;
  bool enabled_ = true;
  bool fired_ = false;
};

}  // namespace qat
