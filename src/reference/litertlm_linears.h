// What the linears of a TFLite graph are, found by following its operations.
#pragma once

#include <map>
#include <string>

#include "gemma4/static_scales.h"
#include "io/tflite.h"

namespace qat {

// A FULLY_CONNECTED over a constant.
struct LitertlmLinear {
  const TfliteTensorView* weight = nullptr;
  LinearScales edges = {};  // of QUANTIZE before and after it
  float factor = 1;  // a scalar that its float result is multiplied by before it goes on, or before it is quantized
};

// All linears of a graph by the name of their constant. Throws Error naming `where` for a linear that stands there
// twice, or whose operands are not what this program's exporter writes.
std::map<std::string, LitertlmLinear, std::less<>> linears_of(const TfliteGraphView& graph, const std::string& where);

}  // namespace qat
