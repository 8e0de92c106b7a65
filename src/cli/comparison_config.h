// What `compare CONFIG` compares: one base model quantized without training in several ways, trained in BF16 and with
// quantization, all measured on the same files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/json.h"
#include "trainers/train_config.h"

namespace qat {

// "mse", or "mse+percentile" with the calibration of static activations that `quantize` is to use.
struct QuantizeMethod {
  explicit QuantizeMethod(const std::string& text);

  std::string name;
  std::string calibration;  // empty: the method's own
};

struct ComparisonConfig {
  std::string about;
  std::string model;
  std::string out;
  std::string control;
  std::string qat;
  std::string qat_starts_from = "base";
  std::vector<std::string> settings;
  std::vector<std::string> qat_settings;
  int64_t seeds = 1;
  std::vector<std::string> methods{"rtn", "mse"};
  std::string calibration;
  int64_t calibration_rows = 32;
  int64_t calibration_length = 512;
  std::vector<std::string> choose;
  std::vector<std::string> report;
  std::string questions;
  int64_t documents = 0;
  int64_t max_tokens = 2048;
  int64_t stride = 0;
  int64_t prompts = 0;
  std::string dtype = "float32";
  int64_t sensitivity_rows = 0;
  std::string artifact = "none";
  std::string arithmetic = "float";

  void visit_fields(FieldVisitor& visitor);

  // Relative paths count from the working folder. Throws Error (usage) naming every unknown field, wrong type, missing
  // or impossible value and missing file together.
  static ComparisonConfig load(const std::filesystem::path& path, const std::vector<std::string>& overrides);

  // The arguments of `train` for the control (seed 0), or for QAT with a seed from 1 on, which starts from the folder
  // `best` where `qat_starts_from` says so: the unquantized model then is its teacher, and what its KL is measured to.
  std::vector<std::string> training_arguments(int64_t seed, const std::string& best) const;
  // The settings of such a run. Its model is the base, since others need not be there yet.
  TrainConfig training_config(int64_t seed) const;

  // key=value that such a run gets, in the order in which they count.
  std::vector<std::string> settings_of(int64_t seed) const;

  bool has_control() const { return !control.empty(); }
  // Folders in `out`.
  std::string control_folder() const { return out + "/control"; }
  std::string qat_folder(int64_t seed) const { return out + "/qat-" + std::to_string(seed); }
  std::string quantized_folder(const std::string& method) const { return out + "/ptq-" + method; }
  // What a quantized model is measured from: its checkpoint, or what was exported from it. `step`: ptq-METHOD, qat-SEED.
  std::string measured_path(const std::string& step, const std::string& checkpoint) const;
  // What `compare --sensitivity` writes about the reference, as sensitivity.html too; empty if it is not wanted.
  std::string sensitivity_file() const { return sensitivity_rows > 0 ? out + "/sensitivity.json" : ""; }
  // What quantization is compared with, and KL is measured from.
  std::string reference() const { return has_control() ? control_folder() + "/checkpoint" : model; }
};

}  // namespace qat
