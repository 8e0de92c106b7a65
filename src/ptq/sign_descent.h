// Signed gradient descent on rounding and clipping (SignRound, arXiv 2309.05516, known as AutoRound) on the Q4_0 grid:
// every value learns an offset to its rounding and every block a factor of its scale, which lower the error of the
// output.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "ptq/on_grid.h"

namespace qat {

struct SignDescentOptions {
  // The first step is 1 / steps, later ones fall linearly to nothing: an offset can just come to either end, -0.5 or
  // 0.5.
  int64_t steps = 100;
};

// Starts from the nearest values to the weight [out, in] (fp32) under `scales` (fp16 [out, in / 32]). What descends is
// the output error of each row on input with these second moments [in, in] (fp32), in closed form, so no input is
// needed; of each row the best step is returned, of which the start is one. Blocks of scale 0 keep it.
OnGrid sign_descent(const at::Tensor& weight, const at::Tensor& scales, const at::Tensor& second_moments,
                    const SignDescentOptions& options);

}  // namespace qat
