// AWQ (Lin et al. 2023, arXiv 2306.00978): channels of an input that are large are made smaller, and the columns of the
// weights that meet them larger, which then lose less to rounding.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "ptq/input_scaling.h"

namespace qat {

struct AwqOptions {
  // Exponents 0, 1 / points, 2 / points, ... of a channel's root mean square are tried as its scale.
  int64_t points = 20;
};

// Finds for every input that can be scaled the exponent with the least output error of the linears that read it, each
// error as a share of that output's square, where codes and scales of blocks come from the search by importance (the
// place of AWQ's search for clipping). Of large weights some rows stand for all in this. Exponent 0 changes nothing.
// Folds the scales found, so that norms of the model change; its linears do not yet. `second_moments` [in, in] (fp32):
// of every input, by name. The result has all linears that read the inputs, by name, those in whose way something is
// with that obstacle alone.
std::map<std::string, LinearScaling> awq(Gemma4Model& model, const std::vector<LinearInput>& inputs,
                                         const std::map<std::string, at::Tensor>& second_moments,
                                         const AwqOptions& options);

}  // namespace qat
