// The LibTorch model behind the LanguageModel interface: evaluation in chunks and decoding with a KV cache. No
// gradients.
#pragma once

#include <memory>

#include "gemma4/language_model.h"
#include "model/gemma4_model.h"

namespace qat {

// Sliding layers keep only their window in the cache; layers that share keys and values have none.
// `model` must outlive the result.
std::unique_ptr<LanguageModel> make_language_model(const Gemma4Model& model);

}  // namespace qat
