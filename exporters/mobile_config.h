// The config.json of a mobile folder: the base model's, with an untied head and the bit width of every module.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "exporters/mobile_checkpoint.h"

namespace qat {

// `config` is the base model's. Patterns are disjoint, since their order gets lost when transformers sorts keys, and
// match with or without the prefix of a multimodal model.
nlohmann::ordered_json mobile_config(const nlohmann::ordered_json& config, const MobileCheckpoint& checkpoint);

// Whether the format stores a weight's codes; the per-layer model projection is BF16 in it whatever the plan says.
bool mobile_folder_has_codes(const MobileCheckpoint& checkpoint, const WeightSpec& weight);

}  // namespace qat
