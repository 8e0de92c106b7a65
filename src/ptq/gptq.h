// GPTQ (Frantar et al. 2022, arXiv 2210.17323) on the Q4_0 grid: columns are rounded one after another, and those that
// are not rounded yet take over the error that the rounded ones make in the output.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace qat {

struct GptqOptions {
  // Added to the diagonal of the second moments, as a share of its mean.
  double damping = 0.01;
  // Columns whose input is largest come first.
  bool orders_by_activation = true;
};

// The weight [out, in] (fp32) moved onto the grid: fp32 values that `scales` (fp16 [out, in / 32]) and codes stand for.
// `second_moments` [in, in] (fp32) are those of its input. Where they are not positive definite damping grows tenfold
// at a time; nullopt if they still are not at a damping of 1.
std::optional<at::Tensor> gptq(const at::Tensor& weight, const at::Tensor& scales, const at::Tensor& second_moments,
                               const GptqOptions& options);

}  // namespace qat
