// What an optimizer remembers of earlier gradients, in several sizes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "trainers/optimizer.h"
#include "trainers/stochastic_rounding.h"

namespace qat {

class Moments {
 public:
  virtual ~Moments() = default;
  // Takes the gradient of weight `index` at step `step` (from 1) in, and replaces it by the direction of the update:
  // the weight moves by -rate times it. fp32, contiguous. The result depends on no number of threads.
  virtual void turn_into_direction(size_t index, const at::Tensor& gradient, int64_t step,
                                   const ElementRandom& random) = 0;
  virtual std::vector<StateArray> state_arrays() const = 0;
};

// AdamW's two moments, as in adamw.h: in fp32, or as the 8-bit codes of moment_codec.h.
std::unique_ptr<Moments> make_full_moments(const std::vector<TrainedWeight>& weights, const OptimizerConfig& options);
std::unique_ptr<Moments> make_coded_moments(const std::vector<TrainedWeight>& weights, const OptimizerConfig& options);

// Adafactor's second moment (Shazeer, Stern 2018, arXiv 1804.04235, algorithms 4 and 5; no first moment, rates given
// from outside). Of a matrix only the means over rows and over columns of g^2 are kept, of a stack those of each
// matrix:
//   decay = 1 - step^-0.8;  R = decay R + (1 - decay) mean_over_columns(g^2 + 1e-30);  C likewise over rows
//   U = g / sqrt(R C / mean(R));  direction = U / max(1, rms(U))
// A vector keeps its whole second moment.
std::unique_ptr<Moments> make_factored_moments(const std::vector<TrainedWeight>& weights);

}  // namespace qat
