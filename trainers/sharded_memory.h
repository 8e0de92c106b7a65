// The memory of weights that several processes hold together (sharded_weights.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainers/base_model.h"
#include "trainers/train_config.h"

namespace qat {

class ShardedMemory {
 public:
  // `unchanged`: weights that do not learn, which every process has for itself.
  ShardedMemory(const TrainConfig& config, const BaseModel& base, const std::vector<std::string>& unchanged,
                int64_t processes);

  // How many processes hold a weight together, each about as much as any other; 1 where every process has all of it.
  int64_t holders(const WeightSpec& weight) const;
  // Bytes that come from other processes while a layer computes: what it lacks, and already what the one before it in
  // the model lacks, which is computed next in a backward pass. `value`: bytes of a parameter's value.
  int64_t arriving(int64_t layer, int64_t value) const;
  // The most of it in a pass that reads masters (the witness of a checkpoint).
  int64_t most_arriving_masters(int64_t value) const;

 private:
  bool comes_as_codes(const WeightSpec& weight) const;

  const TrainConfig& config_;
  const BaseModel& base_;
  std::vector<std::string> unchanged_;
  int64_t processes_;
};

}  // namespace qat
