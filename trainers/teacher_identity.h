// What a cache of a teacher's states belongs to.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "gemma4/model_folder.h"
#include "trainers/train_config.h"
#include "trainers/training_data.h"

namespace qat {

// Everything that the states depend on, as one flat object: SHA-256 of the teacher's config.json and weights, of the
// tokenizer, of each data file and of the documents' tokens, the settings that make the tokens, and the dtype.
// The weights are digested whole, not by their headers: a model before and after fine-tuning has the same headers.
// Where they stand (sharding, prefixes, other modalities' tensors) does not matter. The order of documents, and so the
// seed, does not either. `config` has its automatic values resolved.
nlohmann::ordered_json teacher_identity(const TrainConfig& config, const ModelFolder& teacher,
                                        const TrainingData& data);

// A line "what: found in the cache, wanted now" per difference; empty if there is none.
std::string identity_differences(const nlohmann::ordered_json& found, const nlohmann::ordered_json& wanted);

}  // namespace qat
