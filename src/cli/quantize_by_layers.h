// quantize --method imatrix, gptq, awq and autoround: quantization that looks at activations of the data.
#pragma once

#include <string>

#include "fake_quant/prepare.h"
#include "model/gemma4_model.h"
#include "trainers/base_model.h"
#include "trainers/train_config.h"

namespace qat {

// Whether a method of `quantize` is one of those.
bool looks_at_activations(const std::string& method);

// Changes the model's Q4_0 linears as the method says, attaches the plan's quantizers with the scales found, and prints
// what became of output errors. Of the config's calibration rows every fourth is kept for measuring. Weights that the
// method cannot change get the scales that `mse` gives them. Throws Error (usage) without data, for fewer than four
// rows of them, and for a plan without q4_0 linears.
FakeQuantSet attach_after_layers(const TrainConfig& config, const std::string& method, const BaseModel& base,
                                 Gemma4Model& model);

}  // namespace qat
