// Sums the gradients of all processes while the backward pass still computes them: pieces of finished weights travel to
// the process that owns them, which adds them in fp32 in the order of ranks. So the sums have the same bits wherever
// they are wanted, at all processes or at the owners alone, and every time. Pieces travel and are added on the CPU, also
// those of weights that lie on a device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "trainers/adamw.h"
#include "trainers/background_queue.h"
#include "trainers/backward_tap.h"
#include "trainers/distributed.h"
#include "trainers/optimizer.h"
#include "trainers/weight_shares.h"

namespace qat {

class GradientExchange {
 public:
  // For `passes` backward passes of this process a step. With `owners_only` a sum arrives at the owner of its weight and
  // nowhere else. `weights` and `group` outlive the exchange.
  GradientExchange(const std::vector<TrainedWeight>& weights, ProcessGroup& group, bool owners_only, int64_t passes);

  // Step `step` (from 1) begins; nothing of an earlier one is left.
  void start(int64_t step);
  // loss.backward(). The last one of the step returns when the sums are there; it throws Error that names rank and weight
  // if a gradient is not finite, and if a connection breaks.
  void backward(const at::Tensor& loss);
  // The sums over all processes, one per weight, where that lies; undefined where only the owner has it. Valid until
  // clear().
  const std::vector<at::Tensor>& sums();
  // Their global L2 norm, equal on all processes. All call it.
  double norm();
  void clear();

 private:
  // A piece on its way: this process's share, and where the sum of all shares goes, if it is wanted here.
  struct Parcel {
    size_t piece;
    at::Tensor mine;
    at::Tensor sum;
  };

  void take(size_t weight);
  void launch(size_t piece);
  at::Tensor place_of_sum(const WeightPiece& piece);
  void exchange(const Parcel& parcel);
  void add_up(const Parcel& parcel, const std::vector<at::Tensor>& shares);
  [[noreturn]] void fail_not_finite(const WeightPiece& piece, const std::vector<at::Tensor>& shares) const;
  void keep(Transfer transfer, size_t most);

  const std::vector<TrainedWeight>& weights_;
  ProcessGroup& group_;
  WeightShares shares_;
  bool owners_only_;
  int64_t passes_;

  // Of the present step.
  int64_t step_ = 0;
  int64_t pass_ = 0;       // passes done
  GradientSum gradients_;  // of this process
  std::vector<bool> taken_;
  size_t next_piece_ = 0;
  std::vector<at::Tensor> local_;  // flat, on the CPU, until the last piece is on its way
  std::vector<at::Tensor> sums_;
  std::vector<double> squares_;  // of the sums, per piece, at its owner

  std::deque<Transfer> in_flight_;  // of the queue's thread
  // None alone.
  std::optional<BackwardTap> tap_;
  std::optional<BackgroundQueue> queue_;
};

}  // namespace qat
