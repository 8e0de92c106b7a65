#include "trainers/lean_optimizer.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"
#include "fake_quant/tensor_values.h"
#include "trainers/rounding_in_aten.h"

namespace qat {

namespace {

constexpr int64_t kPiece = int64_t{1} << 14;

std::vector<size_t> indices(const std::vector<TrainedWeight>& weights, bool that_stay_float) {
  std::vector<size_t> result;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i].stays_float() == that_stay_float) result.push_back(i);
  }
  return result;
}

template <class T>
std::vector<T> pick(const std::vector<T>& all, const std::vector<size_t>& wanted) {
  std::vector<T> result;
  for (const size_t index : wanted) result.push_back(all[index]);
  return result;
}

std::unique_ptr<Moments> make_moments(const std::vector<TrainedWeight>& weights, const OptimizerConfig& options) {
  if (options.kind == "adamw8bit") return make_coded_moments(weights, options);
  if (options.kind == "adafactor") return make_factored_moments(weights);
  QAT_CHECK(options.kind == "adamw");
  return make_full_moments(weights, options);
}

// Parameters hold BF16 numbers, in either dtype.
void put(BFloat16& parameter, BFloat16 value) { parameter = value; }
void put(float& parameter, BFloat16 value) { parameter = to_float(value); }
float get(BFloat16 parameter) { return to_float(parameter); }
float get(float parameter) { return parameter; }

// Calls run(parameters, first, end) with the parameters in their own type, on all threads.
template <class Run>
void for_pieces(const at::Tensor& parameter, const Run& run) {
  const auto visit = [&](auto parameters) {
    at::parallel_for(0, parameter.numel(), kPiece, [&](int64_t first, int64_t end) {
      run(parameters, static_cast<size_t>(first), static_cast<size_t>(end));
    });
  };
  if (parameter.scalar_type() == at::kBFloat16) {
    visit(values_of<BFloat16>(parameter));
  } else {
    visit(values_of<float>(parameter));
  }
}

void write_parameter(const at::Tensor& parameter, const at::Tensor& master) {
  const auto masters = values_of<const float>(master);
  for_pieces(parameter, [&](auto parameters, size_t first, size_t end) {
    for (size_t i = first; i < end; ++i) put(parameters[i], to_bfloat16(masters[i]));
  });
}

}  // namespace

LeanOptimizer::LeanOptimizer(std::vector<TrainedWeight> weights, const OptimizerConfig& options, uint64_t seed)
    : Optimizer(std::move(weights)),
      options_(options),
      seed_(seed),
      lean_(indices(weights_, /*that_stay_float=*/false)),
      exact_(indices(weights_, /*that_stay_float=*/true)),
      moments_(make_moments(pick(weights_, lean_), options)),
      floats_(pick(weights_, exact_), options) {
  place_.resize(weights_.size());
  for (const std::vector<size_t>& group : {lean_, exact_}) {
    for (size_t i = 0; i < group.size(); ++i) place_[group[i]] = i;
  }
  if (options_.masters == "bfloat16") return;
  for (const size_t index : lean_) {
    masters_.push_back(weights_[index].parameter.detach().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true));
  }
}

void LeanOptimizer::start_update(const UpdateRule& rule) {
  Optimizer::start_update(rule);
  floats_.start_update(rule);
}

void LeanOptimizer::update_weight(size_t index, const at::Tensor& gradient) {
  const at::NoGradGuard no_grad;
  const size_t place = place_[index];
  if (weights_[index].stays_float()) {
    floats_.update_weight(place, gradient);
    return;
  }
  const ElementRandom random(seed_, steps_done_, weights_[index].name);
  at::Tensor direction = gradient.to(at::kFloat).div_(rule_.divisor);
  moments_->turn_into_direction(place, direction, steps_done_, random);
  move(place, direction, rule_.learning_rate, random);
}

void LeanOptimizer::move(size_t index, const at::Tensor& direction, double rate, const ElementRandom& random) {
  const TrainedWeight& weight = weights_[lean_[index]];
  const auto kept = static_cast<float>(weight.decays ? 1 - rate * options_.weight_decay : 1);
  const auto step = static_cast<float>(rate);
  if (!direction.is_cpu()) {
    QAT_CHECK(masters_.empty());
    const at::Tensor moved = weight.parameter.detach().to(at::kFloat) * kept - direction * step;
    weight.parameter.detach().copy_(round_stochastically_in_aten(moved, random));
    return;
  }
  const auto directions = values_of<const float>(direction);
  if (!masters_.empty()) {
    const auto masters = values_of<float>(masters_[index]);
    for_pieces(weight.parameter, [&](auto parameters, size_t first, size_t end) {
      for (size_t i = first; i < end; ++i) {
        masters[i] = masters[i] * kept - step * directions[i];
        put(parameters[i], to_bfloat16(masters[i]));
      }
    });
    return;
  }
  for_pieces(weight.parameter, [&](auto parameters, size_t first, size_t end) {
    for (size_t i = first; i < end; ++i) {
      const float moved = get(parameters[i]) * kept - step * directions[i];
      put(parameters[i], round_stochastically(moved, random.of_master(static_cast<int64_t>(i))));
    }
  });
}

std::vector<StateArray> LeanOptimizer::state_arrays() const {
  std::vector<StateArray> arrays;
  for (size_t i = 0; i < lean_.size(); ++i) {
    const TrainedWeight& weight = weights_[lean_[i]];
    arrays.push_back({"masters/" + weight.name, masters_.empty() ? weight.parameter.detach() : masters_[i]});
  }
  for (const std::vector<StateArray>& others : {moments_->state_arrays(), floats_.state_arrays()}) {
    arrays.insert(arrays.end(), others.begin(), others.end());
  }
  return arrays;
}

void LeanOptimizer::restored(int64_t steps_done) {
  steps_done_ = steps_done;
  floats_.restored(steps_done);
  for (size_t i = 0; i < masters_.size(); ++i) write_parameter(weights_[lean_[i]].parameter, masters_[i]);
}

}  // namespace qat
