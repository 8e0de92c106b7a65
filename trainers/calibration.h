// First scales of static int8 activations and caches, from data.
#pragma once

#include <string>
#include <vector>

#include "fake_quant/fake_quant_set.h"
#include "model/gemma4_model.h"
#include "trainers/train_config.h"
#include "trainers/training_data.h"

namespace qat {

// How the configuration wants the scales of rows to be found.
RowScaleMethod row_scale_method(const QuantizationConfig& config);

// The same for the scales of Q4_0 blocks.
BlockScaleMethod block_scale_method(const QuantizationConfig& config);

// Finds scales again where a part of the quantization starts with this step (from 0) and not with the first: weights
// have moved since. Scales that a checkpoint gave stay.
void find_scales_when_due(const QuantizationConfig& config, int64_t step, const Gemma4Model& model,
                          FakeQuantSet& fake_quant, TrainingData& data);

// Runs the model, its weights quantized and its activations not, over `batches` and sets the scale of every static edge
// of `parts` that no checkpoint gave. Throws Error naming edges that saw no data, and on Ctrl-C.
std::vector<CalibratedEdge> calibrate(const Gemma4Model& model, FakeQuantSet& fake_quant,
                                      const std::vector<TrainingBatch>& batches, const CalibrationConfig& config,
                                      QuantizedParts parts = {});

// What people want to know of it: how many edges, and where documents' first tokens spike.
std::string describe_calibration(const std::vector<CalibratedEdge>& edges);

}  // namespace qat
