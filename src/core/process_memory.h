// The memory of this process: how much it holds, and that freed buffers are kept for the next step.
#pragma once

#include <cstdint>

namespace qat {

// Resident memory in bytes: the peak so far, and what is resident now, split by what backs it.
struct MemoryUse {
  uint64_t peak_resident = 0;
  uint64_t anonymous = 0;
  uint64_t file_backed = 0;
};
MemoryUse current_memory_use();

// Bytes that this process can still take: the system's estimate (MemAvailable), or what the control groups that hold
// the process leave, if that is less.
uint64_t available_memory();

// From here on malloc keeps what is freed instead of returning it to the system. A training step frees and allocates
// the same large buffers (logits, activations) again and again; faulting them in anew each time took a quarter of it.
void keep_freed_memory();
// What was kept goes back to the system after all: before and after work with large buffers of its own kind.
void return_freed_memory();

}  // namespace qat
