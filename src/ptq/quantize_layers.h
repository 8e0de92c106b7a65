// Post-training quantization that looks at activations, one layer after another: a layer's linears are moved onto their
// grid by what reaches them, then the layer computes what reaches the next one. Q4_0 only.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "gemma4/quant_plan.h"
#include "model/gemma4_model.h"
#include "ptq/awq.h"
#include "ptq/gptq.h"
#include "ptq/sign_descent.h"

namespace qat {

enum class PtqMethod {
  Importance,   // scales and codes by llama.cpp's weighted search, weights from mean squared inputs
  Gptq,         // codes by GPTQ under the scales of that search
  SignDescent,  // codes and scales by signed gradient descent from that search's scales
  // Under scales of input channels, which norms and linears before it take:
  Awq,     // that search; what cannot be scaled is rounded by the scheme's rule
  AwqGptq  // GPTQ, also of what cannot be scaled
};

struct LayerPtqOptions {
  PtqMethod method = PtqMethod::Importance;
  GptqOptions gptq;
  AwqOptions awq;
  SignDescentOptions sign_descent;
};

// Squared error of a linear's output on rows that the method did not see, as a share of the output's square. Where the
// method scales inputs or outputs, the error is that of the unscaled linear's output.
struct LinearOutcome {
  std::string weight;
  double error = 0;
  double rounding_error = 0;  // of rounding by the scheme's rule
  bool is_fallback = false;   // GPTQ could not be done: Importance took its place
  std::string obstacle;       // why Awq leaves it as rounding does; empty: it does not
};

struct LayerPtqResult {
  std::map<std::string, at::Tensor, std::less<>> scales;  // fp16 [blocks]
  std::vector<LinearOutcome> linears;                     // in the order of the forward pass
};

// Whether the methods can change a weight: Q4_0 matrices of layers that are plain linear maps.
bool is_quantized_by_layer(const WeightSpec& weight, const ResolvedPlan& plan);

// Moves the masters of those weights onto the grid: BF16 numbers that encode to the chosen codes under the returned
// scales. `model` is in Float, its other weights stay as they are, but for norms that Awq and AwqGptq divide: they
// multiply the masters that read them before they move them. `calibration` and `held_out`: at least one batch
// each. Throws Error if a weight's input is not finite. Without autograd; memory beside the model: hidden states of all
// batches, and one layer's statistics.
LayerPtqResult quantize_layers(Gemma4Model& model, const ResolvedPlan& plan,
                               const std::vector<PackedTokens>& calibration, const std::vector<PackedTokens>& held_out,
                               const LayerPtqOptions& options);

// "187 of 196 linears have a lower output error than by rounding (median 0.63 of it)", a list of the others, and one of
// those that the method leaves as rounding does, with its reasons; they are not among the 196.
std::string describe(const LayerPtqResult& result);

}  // namespace qat
