#include "trainers/gradient_exchange.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <span>
#include <type_traits>
#include <utility>

#include "core/error.h"
#include "core/float_types.h"
#include "fake_quant/tensor_values.h"

namespace qat {

namespace {

constexpr size_t kInFlight = 16;  // messages that wait for other processes, each a piece of a few megabytes
constexpr size_t kLanes = 16;     // values that are added at a time: a count that the compiler knows

float widened(float value) { return value; }
float widened(BFloat16 value) { return to_float(value); }

// sum = shares[0] + shares[1] + ... in this order; returns the sum of the squares.
template <class Value>
double add_in_order(const std::vector<at::Tensor>& shares, std::span<float> sum) {
  std::vector<std::span<const Value>> values;
  for (const at::Tensor& share : shares) values.push_back(values_of<const Value>(share));
  std::array<double, kLanes> squares{};
  const auto add = [&](size_t first, auto count) {
    std::array<float, kLanes> total{};
    for (size_t i = 0; i < count; ++i) total[i] = widened(values[0][first + i]);
    for (size_t share = 1; share < values.size(); ++share) {
      for (size_t i = 0; i < count; ++i) total[i] += widened(values[share][first + i]);
    }
    for (size_t i = 0; i < count; ++i) sum[first + i] = total[i];
    for (size_t i = 0; i < count; ++i) squares[i] += static_cast<double>(total[i]) * total[i];
  };
  size_t first = 0;
  for (; first + kLanes <= sum.size(); first += kLanes) add(first, std::integral_constant<size_t, kLanes>());
  add(first, sum.size() - first);
  return std::accumulate(squares.begin(), squares.end(), 0.0);
}

}  // namespace

GradientExchange::GradientExchange(const std::vector<TrainedWeight>& weights, ProcessGroup& group, bool owners_only,
                                   int64_t passes)
    : weights_(weights),
      group_(group),
      shares_(weights, group.size()),
      owners_only_(owners_only),
      passes_(passes),
      gradients_(weights) {
  if (group.size() == 1) return;
  tap_.emplace(weights);
  queue_.emplace();
}

void GradientExchange::start(int64_t step) {
  clear();
  step_ = step;
}

void GradientExchange::backward(const at::Tensor& loss) {
  if (++pass_ < passes_ || !tap_) {
    loss.backward();
    gradients_.collect();
    return;
  }
  // What earlier passes left is added to what the tap shows.
  tap_->backward(loss, [this](size_t weight, const at::Tensor& /*gradient*/) { take(weight); });
  queue_->push([this] { keep({}, 0); });
  queue_->wait();
  for (size_t i = 0; i < sums_.size(); ++i) {
    if (sums_[i].defined()) sums_[i] = sums_[i].to(weights_[i].parameter.device());
  }
}

const std::vector<at::Tensor>& GradientExchange::sums() { return queue_ ? sums_ : gradients_.sums(); }

double GradientExchange::norm() {
  if (!queue_) return gradients_.norm();
  const std::vector<double> squares = group_.sum(squares_);
  return std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0));
}

void GradientExchange::clear() {
  gradients_.clear();
  pass_ = 0;
  taken_.assign(weights_.size(), false);
  next_piece_ = 0;
  local_.assign(weights_.size(), {});
  sums_.assign(weights_.size(), {});
  squares_.assign(shares_.pieces().size(), 0);
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
  local_[weight] =
      gradient.defined() ? gradient.to(at::kCPU, type).contiguous().view(-1) : at::zeros({parameter.numel()}, type);
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
  if (piece.owner == group_.rank() || !owners_only_) parcel.sum = place_of_sum(piece);
  if (piece.weights.size() == 1) {
    at::Tensor& local = local_[piece.weights.front()];
    parcel.mine = local.narrow(0, piece.first, piece.count);
    if (piece.first + piece.count == local.numel()) local.reset();
  } else {
    std::vector<at::Tensor> parts;
    for (const size_t weight : piece.weights) parts.push_back(std::exchange(local_[weight], {}));
    parcel.mine = at::cat(parts);
  }
  queue_->push([this, parcel] { exchange(parcel); });
}

at::Tensor GradientExchange::place_of_sum(const WeightPiece& piece) {
  if (piece.weights.size() == 1) {
    at::Tensor& sum = sums_[piece.weights.front()];
    if (!sum.defined()) sum = at::empty(weights_[piece.weights.front()].parameter.sizes(), at::kFloat);
    return sum.view(-1).narrow(0, piece.first, piece.count);
  }
  const at::Tensor together = at::empty({piece.count}, at::kFloat);
  int64_t first = 0;
  for (const size_t weight : piece.weights) {
    const at::Tensor& parameter = weights_[weight].parameter;
    sums_[weight] = together.narrow(0, first, parameter.numel()).view(parameter.sizes());
    first += parameter.numel();
  }
  return together;
}

void GradientExchange::exchange(const Parcel& parcel) {
  const int64_t owner = shares_.pieces()[parcel.piece].owner;
  if (owner != group_.rank()) {
    keep(group_.send(parcel.mine, owner), kInFlight);
    if (parcel.sum.defined()) keep(group_.receive(parcel.sum, owner), kInFlight);
    return;
  }
  std::vector<at::Tensor> shares;
  std::vector<Transfer> arrivals;
  for (int64_t rank = 0; rank < group_.size(); ++rank) {
    shares.push_back(rank == owner ? parcel.mine : at::empty_like(parcel.mine));
    if (rank != owner) arrivals.push_back(group_.receive(shares.back(), rank));
  }
  for (const Transfer& arrival : arrivals) arrival.wait();
  add_up(parcel, shares);
  for (int64_t rank = 0; rank < group_.size() && !owners_only_; ++rank) {
    if (rank != owner) keep(group_.send(parcel.sum, rank), kInFlight);
  }
}

void GradientExchange::add_up(const Parcel& parcel, const std::vector<at::Tensor>& shares) {
  const auto sum = values_of<float>(parcel.sum);
  double& squares = squares_[parcel.piece];
  squares = parcel.mine.scalar_type() == at::kBFloat16 ? add_in_order<BFloat16>(shares, sum)
                                                       : add_in_order<float>(shares, sum);
  if (!std::isfinite(squares)) fail_not_finite(shares_.pieces()[parcel.piece], shares);
}

void GradientExchange::fail_not_finite(const WeightPiece& piece, const std::vector<at::Tensor>& shares) const {
  for (size_t rank = 0; rank < shares.size(); ++rank) {
    int64_t first = 0;
    for (const size_t weight : piece.weights) {
      const int64_t count = piece.weights.size() == 1 ? piece.count : weights_[weight].parameter.numel();
      const bool is_finite = at::isfinite(shares[rank].narrow(0, first, count)).all().item<bool>();
      if (!is_finite) {
        fail("step ", step_, ": the gradient of ", weights_[weight].name, " that rank ", rank,
             " computed is not finite; the weights were not updated. Lower optimizer.learning_rate, or look at the ",
             "data of this step");
      }
      first += count;
    }
  }
  fail("step ", step_, ": the sum over the processes of the gradient of ", weights_[piece.weights.front()].name,
       " is not finite; the weights were not updated. Lower optimizer.learning_rate");
}

// Waits for the oldest messages until at most `most` are under way.
void GradientExchange::keep(Transfer transfer, size_t most) {
  if (transfer.wait) in_flight_.push_back(std::move(transfer));
  for (; in_flight_.size() > most; in_flight_.pop_front()) in_flight_.front().wait();
}

}  // namespace qat
