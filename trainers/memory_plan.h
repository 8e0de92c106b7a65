// The memory estimate of a run beside what the process has, can have, and had in the end.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainers/distributed.h"
#include "trainers/memory_estimate.h"

namespace qat {

class MemoryPlan {
 public:
  // To be made when everything is read and nothing of the model allocated. Throws as check_memory(). Processes of a
  // group on one machine share what it has. What another device than the CPU has is not looked at.
  MemoryPlan(const TrainConfig& config, const BaseModel& base, const std::vector<std::string>& frozen,
             const ProcessGroup& group);

  // A line of the run's summary, and one for its end.
  std::string summary() const;
  std::string outcome() const;

 private:
  int64_t predicted() const { return taken_ + estimate_.total(); }

  std::string device_;
  MemoryEstimate estimate_;
  int64_t taken_;  // before the model
  int64_t available_;
};

}  // namespace qat
