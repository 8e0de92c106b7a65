// How pieces of a group's gradients are added: through the memory of hosts (host_sums.h) or over the links between
// devices (collective_sums.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "trainers/distributed.h"
#include "trainers/optimizer.h"
#include "trainers/weight_shares.h"

namespace qat {

// A piece on its way: this process's share, and where the sum of all shares goes, if it is wanted here. Both are flat
// and lie on the device of the sums, the sum in fp32.
struct Parcel {
  size_t piece;
  at::Tensor mine;
  at::Tensor sum;
};

class PieceSums {
 public:
  virtual ~PieceSums() = default;

  virtual at::Device device() const = 0;
  // Step `step` (from 1) begins; nothing of an earlier one is left.
  virtual void start(int64_t step) = 0;
  // Takes the next piece, in the same order on all processes, and may return before its sum is there.
  virtual void add(const Parcel& parcel) = 0;
  // Returns when all sums are there: the sum of each one's squares, equal on all processes. Throws Error that names
  // step, rank and weight if a gradient is not finite, and if a connection breaks.
  virtual std::vector<double> finish() = 0;
};

// All processes call it. What it takes outlives the result.
std::unique_ptr<PieceSums> make_piece_sums(const std::vector<TrainedWeight>& weights, const WeightShares& shares,
                                           ProcessGroup& group, bool owners_only);

// Elements that a piece has of one of its weights.
int64_t elements_of(size_t weight, const WeightPiece& piece, const std::vector<TrainedWeight>& weights);

// For the error of a gradient that these ranks computed; of none: which their sum alone made infinite.
[[noreturn]] void fail_not_finite(int64_t step, const std::string& weight, const std::vector<size_t>& ranks);

}  // namespace qat
