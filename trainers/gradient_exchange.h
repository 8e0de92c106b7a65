// Sums the gradients of all processes in fp32 while the backward pass still computes them: pieces of finished weights
// leave in an order that is the same everywhere (piece_sums.h). The sums have the same bits wherever they are wanted,
// at all processes or at the owners alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "trainers/adamw.h"
#include "trainers/backward_tap.h"
#include "trainers/distributed.h"
#include "trainers/optimizer.h"
#include "trainers/piece_sums.h"
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
  // Their global L2 norm, equal on all processes.
  double norm();
  void clear();

 private:
  void take(size_t weight);
  void launch(size_t piece);
  at::Tensor place_of_sum(const WeightPiece& piece);

  const std::vector<TrainedWeight>& weights_;
  int64_t rank_;
  WeightShares shares_;
  bool owners_only_;
  int64_t passes_;

  // Of the present step.
  int64_t pass_ = 0;       // passes done
  GradientSum gradients_;  // of this process
  std::vector<bool> taken_;
  size_t next_piece_ = 0;
  std::vector<at::Tensor> local_;  // flat, until the last piece is on its way
  std::vector<at::Tensor> sums_;
  std::vector<double> squares_;  // of the sums, per piece

  // None alone.
  std::optional<BackwardTap> tap_;
  std::unique_ptr<PieceSums> pieces_;
};

}  // namespace qat
