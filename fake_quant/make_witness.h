// Records what the fake-quantized forward pass really used and computed.
#pragma once

#include <cstdint>
#include <vector>

#include "fake_quant/fake_quant_set.h"
#include "gemma4/witness.h"
#include "model/gemma4_model.h"

namespace qat {

// Most bytes of logits that exist at a time.
inline constexpr int64_t kWitnessLogitsBytes = int64_t{64} << 20;

// Runs the model on the prompts (each cut to kWitnessPositions tokens, to fewer where the codes of all static edges
// would take more than 32 MiB) and records logits, codes and digests. The model must be in Float mode: witness logits
// have fp32 activations.
Witness make_witness(const Gemma4Model& model, const FakeQuantSet& fake_quant,
                     const std::vector<std::vector<int32_t>>& prompts);

}  // namespace qat
