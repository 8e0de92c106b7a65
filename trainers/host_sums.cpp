#include "trainers/host_sums.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/isfinite.h>

#include <array>
#include <cmath>
#include <numeric>
#include <span>
#include <type_traits>
#include <utility>

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

HostSums::HostSums(const std::vector<TrainedWeight>& weights, const WeightShares& shares, ProcessGroup& group,
                   bool owners_only)
    : weights_(weights), shares_(shares), group_(group), owners_only_(owners_only) {}

void HostSums::start(int64_t step) {
  step_ = step;
  squares_.assign(shares_.pieces().size(), 0);
}

void HostSums::add(const Parcel& parcel) {
  queue_.push([this, parcel] { exchange(parcel); });
}

std::vector<double> HostSums::finish() {
  queue_.push([this] { keep({}, 0); });
  queue_.wait();
  return group_.sum(squares_);
}

void HostSums::exchange(const Parcel& parcel) {
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

void HostSums::add_up(const Parcel& parcel, const std::vector<at::Tensor>& shares) {
  const auto sum = values_of<float>(parcel.sum);
  double& squares = squares_[parcel.piece];
  squares = parcel.mine.scalar_type() == at::kBFloat16 ? add_in_order<BFloat16>(shares, sum)
                                                       : add_in_order<float>(shares, sum);
  if (!std::isfinite(squares)) explain(shares_.pieces()[parcel.piece], shares);
}

void HostSums::explain(const WeightPiece& piece, const std::vector<at::Tensor>& shares) const {
  for (size_t rank = 0; rank < shares.size(); ++rank) {
    int64_t first = 0;
    for (const size_t weight : piece.weights) {
      const int64_t count = elements_of(weight, piece, weights_);
      const bool is_finite = at::isfinite(shares[rank].narrow(0, first, count)).all().item<bool>();
      if (!is_finite) fail_not_finite(step_, weights_[weight].name, {rank});
      first += count;
    }
  }
  fail_not_finite(step_, weights_[piece.weights.front()].name, {});
}

// Waits for the oldest messages until at most `most` are under way.
void HostSums::keep(Transfer transfer, size_t most) {
  if (transfer.wait) in_flight_.push_back(std::move(transfer));
  for (; in_flight_.size() > most; in_flight_.pop_front()) in_flight_.front().wait();
}

}  // namespace qat
