// The memory that a run will need, told before it allocates any: the tensors that the parts of training hold at the
// moment at which they hold most together. The process needs more: libraries, and what malloc cannot use again (on
// models of a few megabytes half as much again).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainers/base_model.h"
#include "trainers/train_config.h"

namespace qat {

struct MemoryPart {
  std::string name;
  int64_t bytes = 0;
};

struct MemoryEstimate {
  std::string moment;             // "the backward pass", ...
  std::vector<MemoryPart> parts;  // those that are there at this moment, none empty
  int64_t in_file = 0;            // bytes of weights that are read in mapped files, whose pages the system can drop

  int64_t total() const;
};

// For the configuration as it is, "auto" resolved. `frozen`: weights that are not trained. With `processes` in the
// group, of one of them.
MemoryEstimate estimate_memory(const TrainConfig& config, const BaseModel& base,
                               const std::vector<std::string>& frozen, int64_t processes = 1);

// "parameters 1.1 GB, masters 1.1 GB, ...; 4.8 GB of weights stay in the model's files"
std::string describe(const MemoryEstimate& estimate);

// Throws Error if the estimate is more than the bytes available, saying which settings would need how much; with
// memory_check = "warn" the same text goes to stderr instead.
void check_memory(const TrainConfig& config, const BaseModel& base, const std::vector<std::string>& frozen,
                  int64_t available, int64_t processes = 1);

}  // namespace qat
