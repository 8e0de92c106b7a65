#include "trainers/training_run.h"

#include <chrono>
#include <nlohmann/json.hpp>

#include "core/process_memory.h"
#include "core/terminal.h"
#include "eval/run_report.h"
#include "trainers/calibration.h"

namespace qat {

namespace {

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

bool divides(int64_t every, int64_t step) { return every > 0 && step % every == 0; }

void append_changes(nlohmann::ordered_json& line, const CodeChanges& changes) {
  line["codes_changed"] = changes.changed_share();
  line["codes_returned"] = changes.returned_share();
}

}  // namespace

TrainingRun::TrainingRun(const RunParts& parts, TrainState state)
    : parts_(parts),
      state_(std::move(state)),
      display_(state_.step, parts.config.steps),
      saved_step_(state_.step > 0 ? state_.step : -1) {
  if (parts.group.is_first()) {
    metrics_.emplace(parts.folder.metrics(), state_.metrics_lines);
    if (parts.config.tensorboard) tensorboard_.emplace(parts.folder, state_);
  }
  if (saved_step_ >= 0) parts_.sharded.for_first([this] { publish(); });
}

ExitCode TrainingRun::run() {
  for (;;) {
    agree_whether_to_stop();
    if (evaluation_is_due()) evaluate();
    if (save_is_due()) save();
    if (stopping_) return ExitCode::Interrupted;
    if (state_.step >= parts_.config.steps) return ExitCode::Done;
    train_step();
  }
}

void TrainingRun::agree_whether_to_stop() { stopping_ = parts_.group.any(interrupt_requested()); }

bool TrainingRun::evaluation_is_due() const {
  if (parts_.config.data.eval.empty() || parts_.config.eval.every_steps == 0) return false;
  if (state_.evaluated_step == state_.step || stopping_) return false;
  return divides(parts_.config.eval.every_steps, state_.step) || state_.step == parts_.config.steps;
}

bool TrainingRun::save_is_due() const {
  if (saved_step_ == state_.step) return false;
  const bool regular = state_.step > 0 && divides(parts_.config.checkpoint.every_steps, state_.step);
  return regular || state_.step == parts_.config.steps || stopping_;
}

void TrainingRun::train_step() {
  const Stopwatch watch;
  find_scales_when_due(parts_.config.quantization, state_.step, parts_.model, parts_.fake_quant, parts_.data);
  const StepReport report = parts_.trainer.step();
  state_.step = report.step;
  state_.data = parts_.data.position();
  written_.reset();
  if (parts_.group.is_first()) record(report, watch.seconds());
}

void TrainingRun::record(const StepReport& report, double seconds) {
  const double tokens_per_second = static_cast<double>(report.tokens) / seconds;
  metrics_->append({{"kind", "step"},
                    {"step", report.step},
                    {"loss", report.loss()},
                    {"learning_rate", report.learning_rate},
                    {"gradient_norm", report.gradient_norm},
                    {"tokens", report.tokens},
                    {"trained_tokens", report.trained_tokens},
                    {"tokens_per_second", tokens_per_second},
                    {"seconds", seconds},
                    {"peak_memory", current_memory_use().peak_resident}});
  if (tensorboard_) tensorboard_->step(report, tokens_per_second);
  display_.step(report, tokens_per_second);
}

void TrainingRun::evaluate() {
  const Stopwatch watch;
  // What is measured is what would be exported, also while training still runs without fake quantization.
  parts_.fake_quant.enable({});
  parts_.fake_quant.start_statistics();
  const auto result = evaluate_held_out(parts_.model, parts_.data.held_out(), parts_.reference, parts_.group);
  const auto statistics = parts_.fake_quant.stop_statistics();
  agree_whether_to_stop();
  if (!result) return;
  const double metric = parts_.config.wants_kl() ? *result->kl : result->loss;
  // Step 0 is the model before training: a figure to compare with, not a result to keep.
  const bool best = state_.step > 0 && metric < state_.best_metric;
  if (parts_.group.is_first()) record(*result, best, watch.seconds(), statistics);
  state_.evaluated_step = state_.step;
  if (!best) return;
  state_.best_metric = metric;
  state_.best_step = state_.step;
  if (parts_.config.checkpoint.keep_best)
    parts_.sharded.for_first([this] { write_checkpoint_to(parts_.folder.best()); });
}

void TrainingRun::record(const HeldOutResult& result, bool best, double seconds,
                         const std::vector<NamedStatistics>& statistics) {
  nlohmann::ordered_json line = {{"kind", "eval"}, {"step", state_.step}, {"loss", result.loss}};
  if (result.kl) line["kl"] = *result.kl;
  line["positions"] = result.positions;
  line["best"] = best;
  line["seconds"] = seconds;
  metrics_->append(line);
  append_statistics(statistics);
  if (tensorboard_) tensorboard_->evaluation(state_.step, result);
  display_.evaluation(state_.step, result, best);
}

void TrainingRun::append_statistics(const std::vector<NamedStatistics>& statistics) {
  if (statistics.empty()) return;
  auto list = nlohmann::ordered_json::object();
  CodeChanges total;
  for (const auto& [name, measured, codes] : statistics) {
    list[name] = {{"clipping_rate", measured.clipping_rate()}, {"signal_to_noise_db", measured.signal_to_noise()}};
    const CodeChanges changes = codes.empty() ? CodeChanges() : state_.codes.update(name, codes);
    if (changes.compared > 0) append_changes(list[name], changes);
    total += changes;
  }
  nlohmann::ordered_json line = {{"kind", "quantization"}, {"step", state_.step}};
  if (total.compared > 0) append_changes(line, total);
  line["quantizers"] = std::move(list);
  metrics_->append(line);
}

void TrainingRun::save() {
  if (metrics_) {
    metrics_->sync();
    state_.metrics_lines = metrics_->lines();
  }
  if (tensorboard_) tensorboard_->sync();
  save_state(parts_.folder.state(), state_, parts_.optimizer, parts_.fake_quant, parts_.group);
  saved_step_ = state_.step;
  parts_.sharded.for_first([this] { publish(); });
  if (!parts_.group.is_first()) return;
  report();
  if (stopping_) display_.note(join("stopped at step ", state_.step, ", saved in ", parts_.folder.path().string()));
}

// A report that cannot be written is no reason to end a run: gemma-qat report makes it again.
void TrainingRun::report() {
  const RunFolder& folder = parts_.folder;
  try {
    write_run_report(folder.metrics(), folder.resolved_config(), folder.report());
  } catch (const Error& error) {
    display_.note(error.what());
  }
}

void TrainingRun::publish() {
  if (checkpoint_step(parts_.folder.checkpoint()) != state_.step) write_checkpoint_to(parts_.folder.checkpoint());
  parts_.folder.keep_step(state_.step, parts_.config.checkpoint.keep_last);
  if (!parts_.lora.empty()) parts_.lora.save(parts_.folder.adapter(), parts_.config.model);
}

void TrainingRun::write_checkpoint_to(const std::filesystem::path& folder) {
  if (written_) {
    link_folder(*written_, folder);
  } else {
    // The witness is computed in fp32: its buffers fit in no gap that the step left, and the step's in none of its.
    return_freed_memory();
    parts_.checkpoints.write(folder, parts_.model, parts_.fake_quant, state_.step);
    return_freed_memory();
    written_ = folder;
  }
}

}  // namespace qat
