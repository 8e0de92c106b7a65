// Which process of a group answers for which weights, and in which pieces their numbers travel.
#pragma once

#include <cstdint>
#include <vector>

#include "trainers/optimizer.h"

namespace qat {

// What goes to or comes from one process in one message: a part of a large weight, or several small ones together.
struct WeightPiece {
  int64_t owner = 0;
  std::vector<size_t> weights;  // one, or several whole ones
  int64_t first = 0;            // elements of a single weight: [first, first + count)
  int64_t count = 0;            // elements of all
};

// The owners of things of these sizes: from the largest on, each goes to the process with the least `load` so far (one
// entry per process), which grows.
std::vector<int64_t> balanced_owners(const std::vector<int64_t>& sizes, std::vector<int64_t>& load);

class WeightShares {
 public:
  // Whole weights, as equal in size as the largest ones allow. The same weights and number of processes give the same
  // shares everywhere; who owns a weight of the model does not depend on scales and adapters that learn beside it.
  WeightShares(const std::vector<TrainedWeight>& weights, int64_t processes);

  int64_t owner(size_t weight) const { return owners_[weight]; }
  // Every element once; roughly in the order in which a backward pass finishes weights, the last ones first.
  const std::vector<WeightPiece>& pieces() const { return pieces_; }

 private:
  void cut(const std::vector<TrainedWeight>& weights, int64_t processes);

  std::vector<int64_t> owners_;
  std::vector<WeightPiece> pieces_;
};

}  // namespace qat
