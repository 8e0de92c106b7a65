// A complete training run on a tiny random model: model folder, data and configuration in a temporary folder.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "support/temporary_folder.h"
#include "trainers/train_config.h"

namespace qat::testing {

class TinyRun {
 public:
  TinyRun();

  std::filesystem::path folder(const std::string& name) const { return temporary_ / name; }
  std::filesystem::path model() const { return folder("model"); }
  // 6 quantized steps of two passes into folder `out`, evaluation every 2 steps, a save every 3.
  TrainConfig config(const std::string& out, const std::vector<std::string>& overrides = {}) const;
  // The same as a file for `gemma-qat train`.
  std::filesystem::path config_file(const std::string& out, const std::vector<std::string>& overrides = {}) const;

 private:
  TemporaryFolder temporary_;
};

// run_training with the summary kept off the test's output; returns the exit code.
int train(const TrainConfig& config, bool resume = false);

// Bytes of a file; the test fails if there is none.
std::string bytes_of(const std::filesystem::path& file);

// metrics.jsonl as lines without the fields that measure time and memory.
std::vector<std::string> metrics_of(const std::filesystem::path& run);

// The loss of every step in metrics.jsonl.
std::vector<double> step_losses(const std::filesystem::path& run);

}  // namespace qat::testing
