#include "trainers/memory_plan.h"

#include "core/error.h"
#include "core/process_memory.h"
#include "core/terminal.h"

namespace qat {

namespace {

int64_t resident() {
  const MemoryUse use = current_memory_use();
  return static_cast<int64_t>(use.anonymous + use.file_backed);
}

std::string text_of(int64_t bytes) { return format_bytes(static_cast<double>(bytes)); }

}  // namespace

MemoryPlan::MemoryPlan(const TrainConfig& config, const BaseModel& base, const std::vector<std::string>& frozen,
                       const ProcessGroup& group)
    : device_(config.computes_on_cpu() ? "" : config.device),
      estimate_(estimate_memory(config, base, frozen, group.size())),
      taken_(resident()),
      available_(static_cast<int64_t>(available_memory()) / group.local_size()) {
  if (device_.empty()) check_memory(config, base, frozen, available_, group.size());
}

std::string MemoryPlan::summary() const {
  if (!device_.empty()) {
    return join("memory     at least ", text_of(estimate_.total()), " of ", device_, ", which was not checked (",
                describe(estimate_), ")\n");
  }
  return join("memory     at least ", text_of(predicted()), " of ", text_of(taken_ + available_), " (program and data ",
              text_of(taken_), ", ", describe(estimate_), ")\n");
}

std::string MemoryPlan::outcome() const {
  const std::string peak = text_of(static_cast<int64_t>(current_memory_use().peak_resident));
  if (!device_.empty()) return join("memory     ", peak, " of the host at most, mapped files included\n");
  return join("memory     ", peak, " at most, mapped files included; ", text_of(predicted()),
              " were predicted for tensors alone\n");
}

}  // namespace qat
