#include "trainers/sharded_memory.h"

#include <algorithm>

namespace qat {

namespace {

constexpr int64_t kTravellingValue = 2;  // BF16

}  // namespace

ShardedMemory::ShardedMemory(const TrainConfig& config, const BaseModel& base,
                             const std::vector<std::string>& unchanged, int64_t processes)
    : config_(config), base_(base), unchanged_(unchanged), processes_(processes) {}

int64_t ShardedMemory::holders(const WeightSpec& weight) const {
  if (!config_.shards_parameters() || !weight.layer || !is_matrix(weight.role)) return 1;
  const bool learns = std::find(unchanged_.begin(), unchanged_.end(), weight.name) == unchanged_.end();
  return learns ? processes_ : 1;
}

bool ShardedMemory::comes_as_codes(const WeightSpec& weight) const {
  if (base_.plan() == nullptr || config_.quantization.keep != "codes") return false;
  const WeightPlan& rule = base_.plan()->of(weight.name);
  const bool scales_learn = rule.scales == ScaleSource::Stored && config_.quantization.block_scales == "learned";
  return scheme(rule.scheme).is_quantized() && !scheme(rule.scheme).has_row_scales() && !scales_learn;
}

int64_t ShardedMemory::arriving(int64_t layer, int64_t value) const {
  int64_t bytes = 0;
  for (const WeightSpec& weight : base_.table().weights()) {
    if (weight.layer != layer && weight.layer != layer - 1) continue;
    // Numbers of a type other than theirs in the model travel beside them.
    const int64_t as_numbers = (value + (value == kTravellingValue ? 0 : kTravellingValue)) * weight.elements();
    const int64_t all =
        comes_as_codes(weight) ? scheme(base_.plan()->of(weight.name).scheme).row_bytes(weight.elements()) : as_numbers;
    bytes += all - all / holders(weight);
  }
  return bytes;
}

int64_t ShardedMemory::most_arriving_masters(int64_t value) const {
  std::vector<int64_t> layers(static_cast<size_t>(base_.config().layer_count()));
  for (const WeightSpec& weight : base_.table().weights()) {
    if (weight.layer) {
      layers[static_cast<size_t>(*weight.layer)] += value * (weight.elements() - weight.elements() / holders(weight));
    }
  }
  return 2 * *std::max_element(layers.begin(), layers.end());
}

}  // namespace qat
