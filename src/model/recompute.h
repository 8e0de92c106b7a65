// Parts of a forward pass that keep only their inputs and are computed again in the backward pass (Chen et al. 2016,
// "Training deep nets with sublinear memory cost").
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

namespace qat {

// Outputs from inputs. Called again in the backward pass, so what it reads besides its inputs must still be there then
// and hold the same values.
using Computation = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;

// Brings what a computation reads besides its inputs, and keeps it there as long as the result lives. `again`: for the
// repetition and its backward pass. May be empty.
using Provision = std::function<std::shared_ptr<void>(bool again)>;

// compute(inputs), differentiable with respect to the inputs and to every leaf that `compute` reads; the gradients are
// those of the plain call, bit for bit. Leaves get theirs added to .grad, so only backward() reaches them, not grad().
std::vector<at::Tensor> recompute_in_backward(const Computation& compute, const std::vector<at::Tensor>& inputs,
                                              const Provision& provide = {});

// True while a computation is repeated: what counts or records the values that pass by has seen them already.
bool is_recomputing();

}  // namespace qat
