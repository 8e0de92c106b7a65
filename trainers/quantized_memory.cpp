#include "trainers/quantized_memory.h"

namespace qat {

namespace {

// Of a scale that can learn: start, change, value, gradient and AdamW's state, all fp32.
constexpr int64_t kLearnedScale = 7 * 4;

}  // namespace

// How many values of a weight are quantized as a whole: none of tables that are only looked up.
int64_t QuantizedMemory::whole_values(const WeightSpec& weight) const {
  if (base_.plan() == nullptr || !is_matrix(weight.role) || !scheme_of(weight).is_quantized()) return 0;
  return !is_table(weight.role) || weight.name == base_.table().head().name ? weight.elements() : 0;
}

// Scales by a scheme's rule and searched ones follow from the weights and are not held.
int64_t QuantizedMemory::scale_bytes(const WeightSpec& weight) const {
  const QuantScheme& rule = scheme_of(weight);
  if (rule.has_row_scales()) return kLearnedScale * weight.row_scales();
  if (base_.plan()->of(weight.name).scales != ScaleSource::Stored || config_.quantization.block_scales == "search") {
    return 0;
  }
  const int64_t learned = config_.quantization.block_scales == "learned" ? kLearnedScale : 0;
  return (learned + static_cast<int64_t>(sizeof(Float16))) * weight.elements() / rule.block_size;
}

int64_t QuantizedMemory::packed() const {
  int64_t bytes = 0;
  for (const WeightSpec& weight : base_.table().weights()) {
    if (!packs(weight)) continue;
    bytes += scheme_of(weight).row_bytes(weight.elements());
    if (scheme_of(weight).has_row_scales()) bytes += static_cast<int64_t>(sizeof(float)) * weight.row_scales();
  }
  return bytes;
}

int64_t QuantizedMemory::held(int64_t value) const {
  int64_t bytes = 0;
  if (base_.plan() == nullptr) return bytes;
  for (const WeightSpec& weight : base_.table().weights()) {
    bytes += scale_bytes(weight);
    if (keeps(weight, "values")) bytes += value * whole_values(weight) / sharded_.holders(weight);
    if (keeps(weight, "codes")) bytes += scheme_of(weight).row_bytes(whole_values(weight)) / sharded_.holders(weight);
  }
  return bytes;
}

int64_t QuantizedMemory::passing(const std::optional<int64_t>& layer, int64_t value) const {
  int64_t bytes = 0;
  for (const WeightSpec& weight : base_.table().weights()) {
    if (weight.layer != layer || weight.name == base_.table().head().name) continue;
    const bool is_kept = keeps(weight, "values") && sharded_.holders(weight) == 1;
    if (!is_kept) bytes += value * whole_values(weight);
  }
  return bytes;
}

int64_t QuantizedMemory::passing_head(int64_t value) const {
  const WeightSpec& head = base_.table().head();
  return keeps("values") || keeps_in_file(head) ? 0 : value * whole_values(head);
}

int64_t QuantizedMemory::in_file(int64_t value) const {
  const WeightSpec& head = base_.table().head();
  return keeps_in_file(head) ? value * whole_values(head) : 0;
}

}  // namespace qat
