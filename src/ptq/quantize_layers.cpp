#include "ptq/quantize_layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/terminal.h"
#include "fake_quant/block_values.h"
#include "ptq/input_statistics.h"
#include "ptq/on_grid.h"

namespace qat {

namespace {

// Statistics of the inputs of some linears while they live, by input name.
class WatchedInputs {
 public:
  WatchedInputs(Gemma4Model& model, const std::vector<const WeightSpec*>& linears) : model_(model) {
    for (const WeightSpec* linear : linears) {
      const auto [found, is_new] = statistics_.try_emplace(linear->input_name());
      if (!is_new) continue;
      found->second = std::make_shared<InputStatistics>();
      watched_.push_back(linear->name);
      model.projection(linear->name).input_transform = found->second;
    }
  }
  ~WatchedInputs() {
    for (const std::string& name : watched_) model_.projection(name).input_transform = nullptr;
  }
  WatchedInputs(const WatchedInputs&) = delete;
  WatchedInputs& operator=(const WatchedInputs&) = delete;

  at::Tensor of(const WeightSpec& linear) const {
    at::Tensor moments = statistics_.at(linear.input_name())->second_moments();
    if (!moments.isfinite().all().item<bool>()) {
      fail(linear.name, ": its input on the calibration data holds NaN or Inf, so the model or the data are damaged");
    }
    return moments;
  }

 private:
  Gemma4Model& model_;
  std::map<std::string, std::shared_ptr<InputStatistics>> statistics_;
  std::vector<std::string> watched_;
};

// The batches on their way through the layers.
class Travellers {
 public:
  Travellers(const Gemma4Model& model, const std::vector<PackedTokens>& batches) : model_(model), batches_(batches) {
    for (const PackedTokens& batch : batches) states_.push_back(model.embed(batch));
  }

  // What the linears of a layer get to see.
  void look_into(int64_t layer) const {
    for (size_t i = 0; i < states_.size(); ++i) {
      LayerInputs copy = states_[i];
      model_.run_layer(layer, copy, batches_[i]);
    }
  }
  void pass(int64_t layer) {
    for (size_t i = 0; i < states_.size(); ++i) model_.run_layer(layer, states_[i], batches_[i]);
  }

 private:
  const Gemma4Model& model_;
  const std::vector<PackedTokens>& batches_;
  std::vector<LayerInputs> states_;
};

struct Chosen {
  OnGrid on_grid;
  bool is_fallback = false;
};

bool scales_inputs(PtqMethod method) { return method == PtqMethod::Awq || method == PtqMethod::AwqGptq; }

bool stays_as_rounded(const LinearScaling& scaling, PtqMethod method) {
  return method == PtqMethod::Awq && !scaling.obstacle.empty();
}

Chosen choose(const at::Tensor& weight, const LinearScaling& scaling, const at::Tensor& moments,
              const LayerPtqOptions& options) {
  if (stays_as_rounded(scaling, options.method)) return {by_rule(weight)};
  const at::Tensor scaled = scaling.apply(weight);
  Chosen chosen{by_importance(scaled, scaling.squares(moments.diagonal()))};
  if (options.method == PtqMethod::Importance || options.method == PtqMethod::Awq) return chosen;
  if (options.method == PtqMethod::SignDescent) {
    return {sign_descent(scaled, chosen.on_grid.scales, moments, options.sign_descent)};
  }
  const auto values = gptq(scaled, chosen.on_grid.scales, scaling.moments(moments), options.gptq);
  chosen.is_fallback = !values;
  if (values) chosen.on_grid.values = *values;
  return chosen;
}

LinearOutcome outcome_of(const WeightSpec& linear, const at::Tensor& weight, const LinearScaling& scaling,
                         const Chosen& chosen, const at::Tensor& moments, PtqMethod method) {
  const double output = std::max(output_error(weight, moments), 1e-30);
  return {linear.name, output_error(scaling.undo(chosen.on_grid.values) - weight, moments) / output,
          output_error(block_values(Scheme::Q4_0, weight, {}) - weight, moments) / output, chosen.is_fallback,
          stays_as_rounded(scaling, method) ? scaling.obstacle : ""};
}

}  // namespace

bool is_quantized_by_layer(const WeightSpec& weight, const ResolvedPlan& plan) {
  return weight.layer && is_linear(weight.role) && plan.of(weight.name).scheme == Scheme::Q4_0;
}

LayerPtqResult quantize_layers(Gemma4Model& model, const ResolvedPlan& plan,
                               const std::vector<PackedTokens>& calibration, const std::vector<PackedTokens>& held_out,
                               const LayerPtqOptions& options) {
  QAT_CHECK(model.dtype() == at::kFloat && !calibration.empty() && !held_out.empty());
  const at::NoGradGuard no_grad;
  LayerPtqResult result;
  Travellers seen(model, calibration);
  Travellers unseen(model, held_out);
  const int64_t layers = model.config().layer_count();
  Progress progress("quantize", layers, "layers");
  for (int64_t layer = 0; layer < layers; ++layer) {
    std::vector<const WeightSpec*> linears;
    for (const WeightSpec& weight : model.weights().weights()) {
      if (weight.layer == layer && is_quantized_by_layer(weight, plan)) linears.push_back(&weight);
    }
    const auto watch = [&](const Travellers& travellers) {
      auto inputs = std::make_unique<WatchedInputs>(model, linears);
      travellers.look_into(layer);
      return inputs;
    };
    std::map<std::string, at::Tensor> moments, held_out_moments;
    for (const auto& [travellers, into] : {std::pair(&seen, &moments), std::pair(&unseen, &held_out_moments)}) {
      const auto inputs = watch(*travellers);
      for (const WeightSpec* linear : linears) {
        if (!into->contains(linear->input_name())) into->emplace(linear->input_name(), inputs->of(*linear));
      }
    }
    std::map<std::string, LinearScaling> scalings;
    if (scales_inputs(options.method)) {
      const auto may_change = [&](const WeightSpec& weight) { return is_quantized_by_layer(weight, plan); };
      scalings = awq(model, inputs_of_layer(model, layer, may_change), moments, options.awq);
    }
    for (const WeightSpec* linear : linears) {
      at::Tensor& weight = model.projection(linear->name).weight;
      const LinearScaling& scaling = scalings[linear->name];
      const Chosen chosen = choose(weight, scaling, moments.at(linear->input_name()), options);
      result.linears.push_back(outcome_of(*linear, weight, scaling, chosen, held_out_moments.at(linear->input_name()),
                                          options.method));
      weight.copy_(chosen.on_grid.values.to(at::kBFloat16));
      result.scales.emplace(linear->name, chosen.on_grid.scales.reshape({-1}));
    }
    seen.pass(layer);
    unseen.pass(layer);
    progress.advance(1);
    if (interrupt_requested()) fail("interrupted; nothing was written");
  }
  return result;
}

std::string describe(const LayerPtqResult& result) {
  std::vector<double> shares;
  size_t changed = 0;
  std::string others;
  std::map<std::string, std::string> left_alone;  // by reason
  for (const LinearOutcome& linear : result.linears) {
    if (!linear.obstacle.empty()) {
      left_alone[linear.obstacle] += join("\n    ", linear.weight);
      continue;
    }
    ++changed;
    if (linear.rounding_error > 0) shares.push_back(linear.error / linear.rounding_error);
    if (linear.is_fallback) others += join("\n  ", linear.weight, ": its input is degenerate; importance was used");
    if (linear.error < linear.rounding_error) continue;
    others +=
        join("\n  ", linear.weight, ": ", linear.error, " of the output's square, by rounding ", linear.rounding_error);
  }
  std::string text = "no linear of q4_0 blocks in the layers can be changed";
  if (!shares.empty()) {
    const auto lower = std::count_if(shares.begin(), shares.end(), [](double share) { return share < 1; });
    std::nth_element(shares.begin(), shares.begin() + static_cast<int64_t>(shares.size() / 2), shares.end());
    text = join(lower, " of ", changed,
                " linears have a lower output error than by rounding, on rows that the method did not see (median ",
                shares[shares.size() / 2], " of it)", others.empty() ? "" : "; the others:", others);
  }
  if (changed == result.linears.size()) return text;
  text +=
      join("\n", result.linears.size() - changed, " are left as rounding does, since their input cannot be scaled:");
  for (const auto& [reason, linears] : left_alone) text += join("\n  ", reason, ":", linears);
  return text;
}

}  // namespace qat
