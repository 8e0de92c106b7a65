// The memory of quantized weights in a run: what quantizers hold of them, and forward values that come and go.
#pragma once

#include <cstdint>
#include <optional>

#include "trainers/base_model.h"
#include "trainers/sharded_memory.h"
#include "trainers/train_config.h"

namespace qat {

class QuantizedMemory {
 public:
  // `sharded` outlives this. `head_is_constant`: its forward value stays the same for the whole run.
  QuantizedMemory(const TrainConfig& config, const BaseModel& base, const ShardedMemory& sharded, bool head_is_constant)
      : config_(config), base_(base), sharded_(sharded), head_is_constant_(head_is_constant) {}

  // Whether the run keeps a weight as codes: with lora.base = packed. Bytes of all such codes with their scales.
  bool packs(const WeightSpec& weight) const { return config_.packs_base() && base_.can_be_packed(weight); }
  int64_t packed() const;
  // Bytes that quantizers hold between uses: what quantization.keep says, scales, and what trains these. `value`: bytes
  // of a forward value.
  int64_t held(int64_t value) const;
  // Bytes of forward values that are made at every use: a layer's, or with nullopt those outside of layers but for the
  // head's, stay with autograd until its backward pass.
  int64_t passing(const std::optional<int64_t>& layer, int64_t value) const;
  // The same of the head, which nothing keeps unless it is constant.
  int64_t passing_head(int64_t value) const;
  // Bytes of forward values in a scratch file (FakeQuantSet::keep_frozen_head_in).
  int64_t in_file(int64_t value) const;

 private:
  const QuantScheme& scheme_of(const WeightSpec& weight) const { return scheme(base_.plan()->of(weight.name).scheme); }
  bool keeps(const char* what) const { return config_.quantization.keep == what; }
  // Packed weights are decoded and quantized at every use, whatever is kept of others.
  bool keeps(const WeightSpec& weight, const char* what) const {
    return keeps(what) && !packs(weight) && !keeps_in_file(weight);
  }
  bool keeps_in_file(const WeightSpec& weight) const {
    return head_is_constant_ && !keeps("values") && weight.name == base_.table().head().name;
  }
  int64_t whole_values(const WeightSpec& weight) const;
  int64_t scale_bytes(const WeightSpec& weight) const;

  const TrainConfig& config_;
  const BaseModel& base_;
  const ShardedMemory& sharded_;
  bool head_is_constant_;
};

}  // namespace qat
