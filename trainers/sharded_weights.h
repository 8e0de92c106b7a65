// Weights that a group of processes holds together (sharding = parameters): each process those that it owns. Where a
// layer computes, the others' come from their owners, as packed codes where the quantizer needs no more or as BF16
// numbers, and go afterwards.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/gemma4_model.h"
#include "trainers/base_model.h"
#include "trainers/distributed.h"
#include "trainers/train_config.h"

namespace qat {

class ShardedWeights {
 public:
  // The matrices of layers that are not in `unchanged`, with the owners that WeightShares gives them; none if the
  // configuration shards no parameters, or in a group of one. All processes make it at once.
  ShardedWeights(const TrainConfig& config, const BaseModel& base, const std::vector<std::string>& unchanged,
                 const ProcessGroup& group);
  ~ShardedWeights();
  ShardedWeights(const ShardedWeights&) = delete;
  ShardedWeights& operator=(const ShardedWeights&) = delete;

  bool contains(const WeightSpec& weight) const { return owners_.contains(weight.name); }
  // Takes over a weight of the model, which this must outlive, when it was filled: its owner gets a copy of its own,
  // the others keep an absent tensor.
  void take(const WeightSpec& weight, Projection& projection, at::ScalarType dtype);
  // Of the bits of all that were taken over, as they came; the same on all processes that read the same model.
  int64_t checksum() const { return checksum_; }

  // Has the first process do alone what reads weights (a checkpoint), while the others lend it theirs. All call it.
  void for_first(const std::function<void()>& work);

 private:
  class Weight;
  class Loan;

  // While the first process is alone, it asks owners for what it reads, and tells them when there is nothing more.
  void ask(const Weight& weight, bool as_codes);
  void tell(int64_t rank, int64_t index, bool as_codes);
  void serve_first();

  int64_t rank_;
  ProcessGroup connections_;  // of their own: gradients travel meanwhile
  std::map<std::string, int64_t, std::less<>> owners_;
  std::vector<std::shared_ptr<Weight>> weights_;  // in the order in which they were taken
  int64_t checksum_ = 0;
  bool first_is_alone_ = false;
};

}  // namespace qat
