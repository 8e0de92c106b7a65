#include "trainers/gradient_exchange.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace qat {

GradientExchange::GradientExchange(const std::vector<TrainedWeight>& weights, ProcessGroup& group, bool owners_only,
                                   int64_t passes)
    : weights_(weights),
      rank_(group.rank()),
      shares_(weights, group.size()),
      owners_only_(owners_only),
      passes_(passes),
      gradients_(weights) {
  if (group.size() == 1) return;
  tap_.emplace(weights);
  pieces_ = make_piece_sums(weights, shares_, group, owners_only);
}

void GradientExchange::start(int64_t step) {
  clear();
  if (pieces_) pieces_->start(step);
}

void GradientExchange::backward(const at::Tensor& loss) {
  if (++pass_ < passes_ || !tap_) {
    loss.backward();
    gradients_.collect();
    return;
  }
  // What earlier passes left is added to what the tap shows.
  tap_->backward(loss, [this](size_t weight, const at::Tensor& /*gradient*/) { take(weight); });
  squares_ = pieces_->finish();
  for (size_t i = 0; i < sums_.size(); ++i) {
    if (sums_[i].defined()) sums_[i] = sums_[i].to(weights_[i].parameter.device());
  }
}

const std::vector<at::Tensor>& GradientExchange::sums() { return pieces_ ? sums_ : gradients_.sums(); }

double GradientExchange::norm() {
  if (!pieces_) return gradients_.norm();
  return std::sqrt(std::accumulate(squares_.begin(), squares_.end(), 0.0));
}

void GradientExchange::clear() {
  gradients_.clear();
  pass_ = 0;
  taken_.assign(weights_.size(), false);
  next_piece_ = 0;
  local_.assign(weights_.size(), {});
  sums_.assign(weights_.size(), {});
  squares_.clear();
}

// The sum of several passes is fp32, a single gradient of its weight's type: what travels has one type everywhere, also
// from a process whose data did not reach the weight.
void GradientExchange::take(size_t weight) {
  QAT_CHECK(!taken_[weight]);
  const at::NoGradGuard no_grad;
  taken_[weight] = true;
  const at::Tensor& parameter = weights_[weight].parameter;
  const at::ScalarType type = passes_ == 1 ? parameter.scalar_type() : at::kFloat;
  const at::Tensor gradient = gradients_.take(weight);
  const auto options = at::TensorOptions(type).device(pieces_->device());
  local_[weight] =
      gradient.defined() ? gradient.to(options).contiguous().view(-1) : at::zeros({parameter.numel()}, options);
  const auto& pieces = shares_.pieces();
  const auto is_taken = [this](size_t index) { return taken_[index]; };
  while (next_piece_ < pieces.size() &&
         std::all_of(pieces[next_piece_].weights.begin(), pieces[next_piece_].weights.end(), is_taken)) {
    launch(next_piece_++);
  }
}

void GradientExchange::launch(size_t index) {
  const WeightPiece& piece = shares_.pieces()[index];
  Parcel parcel{index, {}, {}};
  if (piece.owner == rank_ || !owners_only_) parcel.sum = place_of_sum(piece);
  if (piece.weights.size() == 1) {
    at::Tensor& local = local_[piece.weights.front()];
    parcel.mine = local.narrow(0, piece.first, piece.count);
    if (piece.first + piece.count == local.numel()) local.reset();
  } else {
    std::vector<at::Tensor> parts;
    for (const size_t weight : piece.weights) parts.push_back(std::exchange(local_[weight], {}));
    parcel.mine = at::cat(parts);
  }
  pieces_->add(parcel);
}

at::Tensor GradientExchange::place_of_sum(const WeightPiece& piece) {
  const auto options = at::TensorOptions(at::kFloat).device(pieces_->device());
  if (piece.weights.size() == 1) {
    at::Tensor& sum = sums_[piece.weights.front()];
    if (!sum.defined()) sum = at::empty(weights_[piece.weights.front()].parameter.sizes(), options);
    return sum.view(-1).narrow(0, piece.first, piece.count);
  }
  const at::Tensor together = at::empty({piece.count}, options);
  int64_t first = 0;
  for (const size_t weight : piece.weights) {
    const at::Tensor& parameter = weights_[weight].parameter;
    sums_[weight] = together.narrow(0, first, parameter.numel()).view(parameter.sizes());
    first += parameter.numel();
  }
  return together;
}

}  // namespace qat
