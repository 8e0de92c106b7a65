// Fake quantization of keys and values as llama.cpp stores them in a q8_0 KV cache, rotated where llama.cpp rotates.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <string>
#include <vector>

#include "model/projection.h"

namespace qat {

class KeyValueFakeQuantizer final : public ActivationTransform {
 public:
  // `rotation`: size of the Hadamard blocks (quant/key_value_rotation.h), 0 = none. Throws Error (usage) for a head
  // size that does not divide into blocks of 32.
  KeyValueFakeQuantizer(std::string name, int64_t rotation, int64_t head_dim);

  // [..., head_dim] -> the same, as read back from the cache; straight-through gradient.
  at::Tensor apply(const at::Tensor& activation) override;

  // Until nullptr is given, apply() appends what it stores: blocks of quant/key_value_block.h.
  void record_into(std::vector<std::byte>* blocks) { recorded_ = blocks; }

  void set_enabled(bool enabled) { enabled_ = enabled; }
  bool has_fired() const { return fired_; }
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  int64_t rotation_;
  bool enabled_ = true;
  bool fired_ = false;
  std::vector<std::byte>* recorded_ = nullptr;
};

}  // namespace qat
