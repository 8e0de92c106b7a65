// The model's description as GGUF metadata: general.* and the keys of the architectures gemma4 and gemma3.
#pragma once

#include <string>
#include <vector>

#include "exporters/gguf_exporter.h"
#include "gemma4/config.h"
#include "io/gguf.h"

namespace qat {

// Throws Error if llama.cpp would compute something else than this model: its loaders derive some facts (which layers
// share keys and values, Gemma 3's attention scale and layer pattern) instead of reading them.
void check_gguf_can_express(const Gemma4Config& config);

void add_general_metadata(GgufWriter& writer, const GgufExportInputs& inputs);
void add_model_metadata(GgufWriter& writer, const Gemma4Config& config);

// Gemma 4's rope_freqs.weight: what frequencies of full layers are divided by: 1 for pairs that turn, 1e30 for the
// others. Empty for Gemma 3.
std::vector<float> rope_frequency_divisors(const Gemma4Config& config);

}  // namespace qat
