// The folder of a training run:
//   config.resolved.json  every field, defaults included
//   metrics.jsonl         a line per step and per evaluation
//   report.html           its curves (eval/run_report.h), as of the last save
//   tensorboard/          the same for TensorBoard, where the configuration wants it (tensorboard_log.h)
//   state.h5              what resume needs (train_state.h)
//   checkpoint/           the newest checkpoint; step-N/ the last few; best/ the one with the lowest held-out metric
//   adapter/              of a LoRA run: A and B of checkpoint/ in PEFT's format (gemma4/adapter_folder.h)
//
// A save writes state.h5 first. All checkpoints follow from a state, so a save that was cut off is finished from it on
// resume.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>

#include "core/folder_lock.h"

namespace qat {

class RunFolder {
 public:
  explicit RunFolder(std::filesystem::path path) : path_(std::move(path)) {}

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path resolved_config() const { return path_ / "config.resolved.json"; }
  std::filesystem::path metrics() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path report() const { return path_ / "report.html"; }
  std::filesystem::path tensorboard() const { return path_ / "tensorboard"; }
  std::filesystem::path state() const { return path_ / "state.h5"; }
  std::filesystem::path checkpoint() const { return path_ / "checkpoint"; }
  std::filesystem::path best() const { return path_ / "best"; }
  std::filesystem::path adapter() const { return path_ / "adapter"; }
  std::filesystem::path step(int64_t step) const;

  // Throws Error (usage) that names --resume if a run was here.
  void refuse_second_run() const;
  bool has_run() const;
  // Creates the folder and keeps other processes out of it from now on; finishes and removes what a killed run left
  // half-written. Throws Error if a run is going on there.
  void open();
  // Where any process may make files without a name; there after the call.
  const std::filesystem::path& for_scratch_files() const;

  // step-N/ beside checkpoint/, its files shared with it by hard links; then all but the newest `kept` are removed.
  void keep_step(int64_t step, int64_t kept) const;

 private:
  std::filesystem::path path_;
  std::optional<FolderLock> lock_;
};

// The step that a checkpoint folder was written at (its training.json); nothing if it is none.
std::optional<int64_t> checkpoint_step(const std::filesystem::path& folder);

// Makes `to` a folder with the files of `from`: hard links where the file system has them, else copies. Files of
// checkpoints are replaced, never rewritten, so sharing them is safe.
void link_folder(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace qat
