#include "trainers/collective_sums.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <cmath>
#include <limits>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <utility>

#include "core/error.h"
#include "trainers/adamw.h"
#include "trainers/library_reason.h"

namespace qat {

namespace {

// Pieces whose sums may be missing, so that those of other owners soon free their memory.
constexpr size_t kInFlight = 16;

[[noreturn]] void fail_to_add(const std::exception& error) {
  fail("gradients could not be added over the links between devices (", reason_of(error),
       "). What was saved last is whole: go on with --resume; NCCL_DEBUG=INFO makes NCCL tell more");
}

}  // namespace

CollectiveSums::CollectiveSums(const std::vector<TrainedWeight>& weights, const WeightShares& shares,
                               ProcessGroup& group, at::Device device, std::shared_ptr<c10d::Backend> links)
    : weights_(weights), shares_(shares), group_(group), device_(device), links_(std::move(links)) {}

void CollectiveSums::start(int64_t step) {
  step_ = step;
  sums_.assign(shares_.pieces().size(), {});
  peaks_.assign(shares_.pieces().size(), {});
}

void CollectiveSums::add(const Parcel& parcel) {
  const at::NoGradGuard no_grad;
  measure(parcel);
  std::vector<at::Tensor> sum{parcel.sum.defined() ? parcel.sum : at::empty_like(parcel.mine, at::kFloat)};
  sum.front().copy_(parcel.mine);
  if (shares_.pieces()[parcel.piece].owner == group_.rank()) sums_[parcel.piece] = sum.front();
  try {
    in_flight_.push_back({[sum, work = links_->allreduce(sum)] { work->wait(); }});
  } catch (const std::exception& error) {
    fail_to_add(error);
  }
  keep(kInFlight);
}

// Whether this process's own share was finite is asked only if a sum is not, when the share is gone. The largest
// magnitude tells and takes no memory.
void CollectiveSums::measure(const Parcel& parcel) {
  const WeightPiece& piece = shares_.pieces()[parcel.piece];
  int64_t first = 0;
  for (const size_t weight : piece.weights) {
    const int64_t count = elements_of(weight, piece, weights_);
    peaks_[parcel.piece].push_back(at::linalg_vector_norm(parcel.mine.narrow(0, first, count),
                                                          std::numeric_limits<double>::infinity(), std::nullopt,
                                                          /*keepdim=*/false, at::kFloat));
    first += count;
  }
}

// Waits for the oldest sums until at most `most` are missing.
void CollectiveSums::keep(size_t most) {
  try {
    for (; in_flight_.size() > most; in_flight_.pop_front()) in_flight_.front().wait();
  } catch (const std::exception& error) {
    fail_to_add(error);
  }
}

std::vector<double> CollectiveSums::finish() {
  keep(0);
  std::vector<double> squares(sums_.size());
  for (size_t i = 0; i < sums_.size(); ++i) {
    if (sums_[i].defined()) squares[i] = sum_of_squares(std::exchange(sums_[i], {}));
  }
  squares = group_.sum(std::move(squares));
  for (size_t i = 0; i < squares.size(); ++i) {
    if (!std::isfinite(squares[i])) explain(i);
  }
  return squares;
}

// All processes come here for the same piece.
void CollectiveSums::explain(size_t piece) {
  const auto ranks = static_cast<size_t>(group_.size());
  const auto& weights = shares_.pieces()[piece].weights;
  std::vector<double> faults(weights.size() * ranks);
  for (size_t i = 0; i < weights.size(); ++i) {
    const bool is_finite = std::isfinite(peaks_[piece][i].item<double>());
    faults[i * ranks + static_cast<size_t>(group_.rank())] = is_finite ? 0 : 1;
  }
  faults = group_.sum(std::move(faults));
  for (size_t i = 0; i < weights.size(); ++i) {
    std::vector<size_t> found;
    for (size_t rank = 0; rank < ranks; ++rank) {
      if (faults[i * ranks + rank] > 0) found.push_back(rank);
    }
    if (!found.empty()) fail_not_finite(step_, weights_[weights[i]].name, found);
  }
  fail_not_finite(step_, weights_[weights.front()].name, {});
}

}  // namespace qat
