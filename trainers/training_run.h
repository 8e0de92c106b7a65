// A run: steps, evaluations, metrics and saves in one order that resume repeats exactly.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "core/error.h"
#include "trainers/base_model.h"
#include "trainers/checkpoint_writer.h"
#include "trainers/distributed.h"
#include "trainers/held_out.h"
#include "trainers/lora.h"
#include "trainers/metrics_log.h"
#include "trainers/optimizer.h"
#include "trainers/run_folder.h"
#include "trainers/sharded_weights.h"
#include "trainers/tensorboard_log.h"
#include "trainers/train_config.h"
#include "trainers/train_state.h"
#include "trainers/trainer.h"
#include "trainers/training_data.h"
#include "trainers/training_display.h"

namespace qat {

// The parts of a run, all of which outlive it.
struct RunParts {
  const TrainConfig& config;
  const RunFolder& folder;
  const CheckpointWriter& checkpoints;
  Gemma4Model& model;
  FakeQuantSet& fake_quant;
  TrainingData& data;
  Optimizer& optimizer;
  Trainer& trainer;
  const LoraAdapters& lora;
  const ReferenceStates* reference;  // null without KL
  ShardedWeights& sharded;
  ProcessGroup& group;
};

class TrainingRun {
 public:
  // `state` is a new one, or that of the run being resumed, already loaded into optimizer and data.
  TrainingRun(const RunParts& parts, TrainState state);

  // Until the last step or Ctrl-C (at any process of the group); saves in both cases. Returns Done or Interrupted.
  ExitCode run();

 private:
  bool evaluation_is_due() const;
  bool save_is_due() const;
  // Ctrl-C reaches the processes of a group at different moments: they agree on the step after which all stop.
  void agree_whether_to_stop();
  void train_step();
  void evaluate();
  // What files and people get of a step and of an evaluation.
  void record(const StepReport& report, double seconds);
  void record(const HeldOutResult& result, bool best, double seconds, const std::vector<NamedStatistics>& statistics);
  // How much every static edge loses on held-out data and every quantized weight of its master, and how many codes of
  // weights changed since the last evaluation.
  void append_statistics(const std::vector<NamedStatistics>& statistics);
  void save();
  void report();
  // Brings checkpoint/, step-N/ and adapter/ in line with the saved state. This and the next are the first process's,
  // to whom the others lend their weights.
  void publish();
  void write_checkpoint_to(const std::filesystem::path& folder);

  RunParts parts_;
  TrainState state_;
  std::optional<MetricsLog> metrics_;  // of the first process, as all files
  std::optional<TensorboardLog> tensorboard_;
  TrainingDisplay display_;
  int64_t saved_step_;
  bool stopping_ = false;
  // A checkpoint of the current step that is already on disk.
  std::optional<std::filesystem::path> written_;
};

}  // namespace qat
