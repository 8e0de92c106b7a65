#include "trainers/adamw.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"

namespace qat {

namespace {

// In float mode the parameter holds a BF16 number too.
void set_rounded(at::Tensor parameter, const at::Tensor& master) {
  if (parameter.scalar_type() == at::kBFloat16) {
    parameter.copy_(master);
  } else {
    parameter.copy_(master.to(at::kBFloat16));
  }
}

}  // namespace

std::vector<TrainedWeight> select_trained_weights(Gemma4Model& model, const std::vector<std::string>& frozen) {
  const at::NoGradGuard no_grad;
  std::vector<TrainedWeight> weights;
  for (const auto& [name, parameter] : model.parameters()) {
    set_rounded(parameter, parameter);
    const bool trained = std::find(frozen.begin(), frozen.end(), name) == frozen.end();
    parameter.set_requires_grad(trained);
    if (trained) weights.push_back({name, parameter, is_matrix(model.weights().find(name)->role)});
  }
  return weights;
}

std::vector<TrainedWeight> select_trained_scales(FakeQuantSet& fake_quant, const std::vector<std::string>& frozen) {
  std::vector<TrainedWeight> scales;
  for (LearnedScale* scale : fake_quant.scales()) {
    if (std::find(frozen.begin(), frozen.end(), scale->name()) != frozen.end()) continue;
    at::Tensor parameter = scale->log_change();
    parameter.set_requires_grad(true);
    scales.push_back({"scale of " + scale->name(), parameter, /*decays=*/false, /*is_scale=*/true});
  }
  return scales;
}

GradientSum::GradientSum(const std::vector<TrainedWeight>& weights) : sums_(weights.size()) {
  for (const TrainedWeight& weight : weights) parameters_.push_back(weight.parameter);
}

void GradientSum::collect() {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    at::Tensor& gradient = parameters_[i].mutable_grad();
    if (!gradient.defined() || gradient.scalar_type() == at::kFloat) continue;
    if (sums_[i].defined()) {
      sums_[i].add_(gradient);
    } else {
      sums_[i] = gradient.to(at::kFloat);
    }
    gradient.reset();
  }
}

const std::vector<at::Tensor>& GradientSum::sums() {
  if (complete_) return sums_;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    at::Tensor& gradient = parameters_[i].mutable_grad();
    if (gradient.defined()) sums_[i] = gradient;
    if (!sums_[i].defined()) sums_[i] = at::zeros_like(parameters_[i], at::kFloat);
    sums_[i] = sums_[i].contiguous();
  }
  complete_ = true;
  return sums_;
}

double GradientSum::norm() {
  const at::NoGradGuard no_grad;
  double squares = 0;
  for (const at::Tensor& sum : sums()) squares += std::pow(at::linalg_vector_norm(sum).item<double>(), 2);
  return std::sqrt(squares);
}

void GradientSum::clear() {
  for (at::Tensor& parameter : parameters_) parameter.mutable_grad().reset();
  for (at::Tensor& sum : sums_) sum.reset();
  complete_ = false;
}

AdamW::AdamW(std::vector<TrainedWeight> weights, const OptimizerConfig& options)
    : Optimizer(std::move(weights)), options_(options) {
  const at::NoGradGuard no_grad;
  for (const TrainedWeight& weight : weights_) {
    state_.masters.push_back(weight.parameter.detach().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true));
    state_.first_moments.push_back(at::zeros_like(state_.masters.back()));
    state_.second_moments.push_back(at::zeros_like(state_.masters.back()));
  }
}

void AdamW::step(const std::vector<at::Tensor>& gradients, double divisor, double learning_rate,
                 double scale_learning_rate) {
  QAT_CHECK(gradients.size() == weights_.size());
  const at::NoGradGuard no_grad;
  ++steps_done_;
  const at::Tensor steps = at::full({}, static_cast<double>(steps_done_), at::kFloat);
  const at::Tensor scale = at::full({}, divisor, at::kFloat);
  struct Group {
    bool is_scale, decays;
    double learning_rate;
  };
  for (const Group& wanted : {Group{false, false, learning_rate}, Group{false, true, learning_rate},
                              Group{true, false, scale_learning_rate}}) {
    std::vector<at::Tensor> masters, group, first, second;
    for (size_t i = 0; i < weights_.size(); ++i) {
      if (weights_[i].decays != wanted.decays || weights_[i].is_scale != wanted.is_scale) continue;
      masters.push_back(state_.masters[i]);
      group.push_back(gradients[i]);
      first.push_back(state_.first_moments[i]);
      second.push_back(state_.second_moments[i]);
    }
    if (masters.empty()) continue;
    const std::vector<at::Tensor> step_counts(masters.size(), steps);
    at::_fused_adamw_(masters, group, first, second, {}, step_counts, wanted.learning_rate, options_.beta1,
                      options_.beta2, wanted.decays ? options_.weight_decay : 0.0, options_.epsilon, /*amsgrad=*/false,
                      /*maximize=*/false, scale);
  }
  write_parameters();
}

std::vector<StateArray> AdamW::state_arrays() const {
  std::vector<StateArray> arrays;
  for (const auto& [group, tensors] :
       {std::pair("masters/", &state_.masters), std::pair("first_moments/", &state_.first_moments),
        std::pair("second_moments/", &state_.second_moments)}) {
    for (size_t i = 0; i < tensors->size(); ++i) arrays.push_back({group + weights_[i].name, (*tensors)[i]});
  }
  return arrays;
}

void AdamW::restored(int64_t steps_done) {
  steps_done_ = steps_done;
  write_parameters();
}

void AdamW::write_parameters() {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < weights_.size(); ++i) {
    at::Tensor parameter = weights_[i].parameter;
    if (weights_[i].stays_float()) {
      parameter.copy_(state_.masters[i]);
    } else {
      set_rounded(parameter, state_.masters[i]);
    }
  }
}

}  // namespace qat
