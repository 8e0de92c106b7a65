// TensorBoard's view of a run: tensorboard/train and tensorboard/eval in the run folder, an event file each.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <utility>

#include "trainers/held_out.h"
#include "trainers/run_folder.h"
#include "trainers/train_state.h"
#include "trainers/trainer.h"

namespace qat {

// One event file: TFRecords of Event messages (tensorflow/core/util/event.proto) with scalar summaries.
class EventFile {
 public:
  // Opens or creates the file. Keeps its events up to `last_step` and drops what follows: steps that a resumed run
  // repeats, and a record that was cut off.
  EventFile(const std::filesystem::path& path, int64_t last_step);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  // Throws Error if the event cannot be written (disk full).
  void append(int64_t step, std::initializer_list<std::pair<const char*, double>> scalars);
  void sync();

 private:
  void write(const std::string& message);

  std::filesystem::path path_;
  int descriptor_ = -1;
};

class TensorboardLog {
 public:
  // `state` says up to which step and which evaluation a resumed run has come.
  TensorboardLog(const RunFolder& folder, const TrainState& state);

  void step(const StepReport& report, double tokens_per_second);
  void evaluation(int64_t step, const HeldOutResult& result);
  // Makes all events durable.
  void sync();

 private:
  EventFile train_;
  EventFile eval_;
};

}  // namespace qat
