// Attaches fake quantization to a model as a plan says.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "core/float_types.h"
#include "fake_quant/fake_quant_set.h"
#include "gemma4/model_folder.h"
#include "gemma4/quant_plan.h"

namespace qat {

// Scales that exist already. What is missing is found from the masters (rows) or by calibration (edges).
struct KnownScales {
  std::function<std::span<const Float16>(const std::string& weight)> blocks;  // one per block; may give none
  std::function<std::span<const float>(const std::string& weight)> rows;      // as stored; may give none
  const StaticScales* edges = nullptr;                                        // may be null
  RowScaleMethod row_method = RowScaleMethod::Searched;
  // Of blocks whose plan says `stored`: Rule takes those of `blocks`, Learned starts from them where there are some.
  BlockScaleMethod block_method = BlockScaleMethod::Rule;

  // Those of a checkpoint folder, which must outlive the result.
  static KnownScales of(const ModelFolder& folder);
};

// Fills the weight slots of every quantized weight, the activation slots of linears with static int8 ends, and the key
// and value slots if the plan quantizes the cache. Linears that read one activation share its quantizer
// (mobile_format.md 1.4). `model` must outlive the result, and be filled: rows get their scales from it.
FakeQuantSet prepare(Gemma4Model& model, const ResolvedPlan& plan, const KnownScales& known);

}  // namespace qat
