// state.h5 of a run folder: everything that resume needs and nobody else reads. Written whole under a temporary name,
// then renamed; each array has a checksum.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>

#include "data/batcher.h"
#include "fake_quant/fake_quant_set.h"
#include "trainers/code_history.h"
#include "trainers/distributed.h"
#include "trainers/optimizer.h"

namespace qat {

// Where a run stands. Random numbers need no entry: the data order follows from seed and position, and nothing else
// draws.
struct TrainState {
  int64_t step = 0;  // optimizer steps done
  BatchPosition data;
  int64_t metrics_lines = 0;    // lines of metrics.jsonl that belong to this state
  int64_t evaluated_step = -1;  // of the last evaluation
  int64_t best_step = -1;       // of best/
  double best_metric = std::numeric_limits<double>::infinity();
  CodeHistory codes;   // as of the last evaluation
  std::string config;  // resolved configuration, JSON
};

// In a group of processes all call these functions at once, but the file is the first one's alone.

// Arrays: format, step, data_position, ... , the optimizer's state, scale_starts/NAME, codes/now/NAME,
// codes/before/NAME.
void save_state(const std::filesystem::path& file, const TrainState& state, const Optimizer& optimizer,
                FakeQuantSet& fake_quant, const ProcessGroup& group);

// Everything but the tensors. Throws Error if the file is damaged or of another format.
TrainState load_state(const std::filesystem::path& file);
// The first process's state, on all; its codes stay there.
TrainState from_first(ProcessGroup& group, TrainState state);
// What the scales of a set started from; before its scales are handed to an optimizer. Throws Error if they are not those of
// this set.
void load_scale_starts(const std::filesystem::path& file, FakeQuantSet& fake_quant, ProcessGroup& group);
// The first process's scale starts, on all: machines of another kind may have calibrated to other last bits.
void share_scale_starts(FakeQuantSet& fake_quant, ProcessGroup& group);
// The tensors, into the optimizer and the model's parameters. Throws Error if they are not those of this optimizer.
void load_optimizer(const std::filesystem::path& file, const TrainState& state, Optimizer& optimizer,
                    const ProcessGroup& group);

}  // namespace qat
