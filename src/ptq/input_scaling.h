// Scaling the channels of a linear's input without changing what the model computes: the linears that read it multiply
// their columns, and what makes it divides, so that the model stays an ordinary one of its kind.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "model/gemma4_model.h"

namespace qat {

// An input of a layer's linears, and who can divide it.
struct LinearInput {
  std::string name;                        // WeightSpec::input_name()
  std::vector<const WeightSpec*> readers;  // all of them
  // One of these makes the input where nothing is in the way: a norm, or a linear whose row i is channel i.
  const WeightSpec* norm = nullptr;
  const WeightSpec* producer = nullptr;
  std::string obstacle;  // why it cannot be scaled, for people; empty: it can
};

// The inputs of all linears of a layer, in the order of the forward pass (gemma4_architecture.md 2.4, 2.5).
// `may_change`: whether a linear's weight may. An input is scaled only if all that it takes may.
std::vector<LinearInput> inputs_of_layer(const Gemma4Model& model, int64_t layer,
                                         const std::function<bool(const WeightSpec&)>& may_change);

// What a linear becomes: weight[i][j] * columns[j] / rows[i].
struct LinearScaling {
  at::Tensor columns;    // fp32 [in]; undefined: 1
  at::Tensor rows;       // fp32 [out]; undefined: 1
  std::string obstacle;  // LinearInput's

  at::Tensor apply(const at::Tensor& weight) const;
  // The weight [out, in] that computes from the input as it was what `scaled` computes in the scaled model.
  at::Tensor undo(const at::Tensor& scaled) const;
  // Of the scaled input, from those of the input as it was: mean squares [in], second moments [in, in].
  at::Tensor squares(const at::Tensor& of_input) const;
  at::Tensor moments(const at::Tensor& of_input) const;
};

// The scales nearest to `wanted` (fp32 [channels], above 0) that the model can have: a norm's weight stays a BF16
// number, so a channel's scale is what two such numbers come to, or 1.
at::Tensor possible_scales(const Gemma4Model& model, const LinearInput& input, const at::Tensor& wanted);

// Divides the input by the nearest possible scales: changes the norm's weight, if that makes it, and tells by name what
// the linears have to become.
void fold_scales(Gemma4Model& model, const LinearInput& input, const at::Tensor& wanted,
                 std::map<std::string, LinearScaling>& linears);

}  // namespace qat
