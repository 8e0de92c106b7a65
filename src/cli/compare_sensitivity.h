// `gemma-qat compare --sensitivity`: which parts of a model suffer from quantization, and a plan that spends a size
// where it helps most.
#pragma once

#include "cli/command.h"

namespace qat {

bool asks_for_sensitivity(const Arguments& arguments);
int compare_sensitivity(const Arguments& arguments);

}  // namespace qat
