#include "trainers/adamw.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "model/absent_weight.h"

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

// Of a weight as a whole or of a part.
void set_parameter(const TrainedWeight& weight, at::Tensor parameter, const at::Tensor& master) {
  if (weight.stays_float()) {
    parameter.copy_(master);
  } else {
    set_rounded(parameter, master);
  }
}

// Values that one thread moves at a time, so that all that belongs to them stays in its cache.
constexpr int64_t kPiece = int64_t{1} << 18;
constexpr int64_t kNormPiece = int64_t{1} << 22;  // of a gradient's norm

}  // namespace

std::vector<TrainedWeight> select_trained_weights(Gemma4Model& model, const std::vector<std::string>& frozen) {
  const at::NoGradGuard no_grad;
  std::vector<TrainedWeight> weights;
  for (const auto& [name, parameter] : model.parameters()) {
    if (!parameter.defined()) continue;  // a stored master: never trained
    if (parameter.scalar_type() == at::kFloat && !is_absent(parameter)) set_rounded(parameter, parameter);
    const bool trained = std::find(frozen.begin(), frozen.end(), name) == frozen.end();
    parameter.set_requires_grad(trained);
    if (!trained) continue;
    TrainedWeight& weight = weights.emplace_back(TrainedWeight{name, parameter});
    weight.decays = is_matrix(model.weights().find(name)->role);
    weight.is_sharded = weight.decays && model.projection(name).lender != nullptr;
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
    if (!sums_[i].defined()) {
      sums_[i] = gradient;
    } else {
      if (sums_[i].scalar_type() != at::kFloat) sums_[i] = sums_[i].to(at::kFloat);
      sums_[i].add_(gradient);
    }
    gradient.reset();
  }
}

at::Tensor GradientSum::take(size_t index) {
  const at::NoGradGuard no_grad;
  const at::Tensor sum = std::exchange(sums_[index], {});
  const at::Tensor last = std::exchange(parameters_[index].mutable_grad(), {});
  if (!sum.defined()) return last;
  return last.defined() ? sum.to(at::kFloat).add_(last) : sum;
}

const std::vector<at::Tensor>& GradientSum::sums() {
  if (complete_) return sums_;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    at::Tensor& gradient = parameters_[i].mutable_grad();
    if (gradient.defined()) sums_[i] = gradient;
    if (!sums_[i].defined()) sums_[i] = at::zeros_like(parameters_[i]);
    sums_[i] = sums_[i].contiguous();
  }
  complete_ = true;
  return sums_;
}

double sum_of_squares(const at::Tensor& gradient) {
  const auto of = [](const at::Tensor& values) {
    const at::NoGradGuard no_grad;
    return std::pow(at::linalg_vector_norm(values, 2, std::nullopt, /*keepdim=*/false, at::kFloat).item<double>(), 2);
  };
  if (!gradient.is_cpu()) return of(gradient);
  // LibTorch computes a norm on one thread.
  const at::Tensor values = gradient.detach().reshape({-1});
  std::vector<double> squares(static_cast<size_t>((values.numel() + kNormPiece - 1) / kNormPiece));
  at::parallel_for(0, static_cast<int64_t>(squares.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t first = piece * kNormPiece;
      squares[static_cast<size_t>(piece)] = of(values.narrow(0, first, std::min(kNormPiece, values.numel() - first)));
    }
  });
  return std::accumulate(squares.begin(), squares.end(), 0.0);
}

double GradientSum::norm() {
  double squares = 0;
  for (const at::Tensor& sum : sums()) squares += sum_of_squares(sum);
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

void AdamW::update_weight(size_t index, const at::Tensor& gradient) {
  const at::NoGradGuard no_grad;
  const TrainedWeight& weight = weights_[index];
  const at::TensorOptions options = state_.masters[index].options();
  const at::Tensor steps = at::full({}, static_cast<double>(steps_done_), options);
  const at::Tensor divisor = at::full({}, rule_.divisor, options);
  const double rate = weight.is_scale ? rule_.scale_learning_rate : rule_.learning_rate;
  const double decay = weight.decays ? options_.weight_decay : 0.0;
  const auto flat = [](const at::Tensor& tensor) { return tensor.detach().view({-1}); };
  const at::Tensor parameters = flat(weight.parameter), gradients = flat(gradient),
                   masters = flat(state_.masters[index]);
  const at::Tensor first = flat(state_.first_moments[index]), second = flat(state_.second_moments[index]);
  const auto update = [&](int64_t from, int64_t count) {
    const at::NoGradGuard no_grad_here;
    const auto piece = [&](const at::Tensor& all) { return all.narrow(0, from, count); };
    at::_fused_adamw_({piece(masters)}, {piece(gradients).to(at::kFloat)}, {piece(first)}, {piece(second)}, {}, {steps},
                      rate, options_.beta1, options_.beta2, decay, options_.epsilon, /*amsgrad=*/false,
                      /*maximize=*/false, divisor);
    set_parameter(weight, piece(parameters), piece(masters));
  };
  // A GPU has its own threads.
  if (!masters.is_cpu()) return update(0, masters.numel());
  at::parallel_for(0, (masters.numel() + kPiece - 1) / kPiece, 1, [&](int64_t begin, int64_t end) {
    for (int64_t from = begin * kPiece; from < std::min(end * kPiece, masters.numel()); from += kPiece) {
      update(from, std::min(kPiece, masters.numel() - from));
    }
  });
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
  const at::NoGradGuard no_grad;
  steps_done_ = steps_done;
  for (size_t i = 0; i < weights_.size(); ++i) set_parameter(weights_[i], weights_[i].parameter, state_.masters[i]);
}

}  // namespace qat
