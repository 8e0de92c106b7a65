#include "cli/untrained_checkpoint.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdio>
#include <initializer_list>

#include "cli/witness_prompts.h"
#include "core/comma_list.h"
#include "core/error.h"
#include "trainers/calibration.h"
#include "trainers/checkpoint_writer.h"
#include "trainers/training_data.h"

namespace qat {

namespace {

namespace fs = std::filesystem;

// One of `known`, or Error (usage).
std::string choice(const cxxopts::ParseResult& options, const char* name, const std::vector<std::string>& known) {
  const auto value = options[name].as<std::string>();
  if (std::find(known.begin(), known.end(), value) != known.end()) return value;
  fail_usage("--", name, " ", value, ": no such choice (known: ", comma_list(known), ")");
}

}  // namespace

const std::vector<std::string>& quantize_methods() {
  static const std::vector<std::string> methods{"rtn", "mse",      "imatrix",   "gptq",
                                                "awq", "awq-gptq", "autoround", "recover"};
  return methods;
}

const std::vector<std::string>& calibration_methods() {
  static const std::vector<std::string> methods{"least_error", "percentile", "maximum"};
  return methods;
}

void add_checkpoint_options(cxxopts::Options& options) {
  options.add_options()("model", "model folder with BF16 weights", cxxopts::value<std::string>())(
      "plan", "name of a plan (gemma-qat configs list) or a file", cxxopts::value<std::string>())(
      "method", comma_list(quantize_methods()), cxxopts::value<std::string>()->default_value("rtn"))(
      "data", "file to compute activations from (JSONL or text)", cxxopts::value<std::string>())(
      "rows", "packed rows of it that are looked at", cxxopts::value<int64_t>()->default_value("32"))(
      "sequence-length", "tokens of a row", cxxopts::value<int64_t>()->default_value("512"))(
      "calibration", "instead of the method's: " + comma_list(calibration_methods()), cxxopts::value<std::string>())(
      "activations", "none, or input for inputs only, instead of the plan's", cxxopts::value<std::string>())(
      "chat-template", "template of conversations in --data, where the model has none", cxxopts::value<std::string>())(
      "kv-cache", "none, q8_0 or int8 instead of the plan's", cxxopts::value<std::string>())(
      "out", "checkpoint folder to write", cxxopts::value<std::string>())("force", "replace it if it is there");
}

TrainConfig read_checkpoint_options(const cxxopts::ParseResult& options, std::initializer_list<const char*> required,
                                    const std::string& usage) {
  for (const char* name : required) {
    if (options.count(name) == 0) fail_usage("--", name, " is missing\n  usage: ", usage);
  }
  TrainConfig config;
  config.model = options["model"].as<std::string>();
  config.out = options["out"].as<std::string>();
  if (fs::exists(config.out) && options.count("force") == 0) {
    fail_usage(config.out, ": is there already; --force replaces it");
  }
  if (options.count("plan") > 0) config.plan = options["plan"].as<std::string>();
  for (const char* name : {"method", "data", "calibration", "activations", "kv-cache"}) {
    if (options.count(name) > 0 && !config.is_quantized()) fail_usage("--", name, ": needs --plan");
  }
  if (options.count("kv-cache") > 0) config.kv_cache = choice(options, "kv-cache", {"none", "q8_0", "int8"});
  if (options.count("activations") > 0) config.activations = choice(options, "activations", {"none", "input"});
  const std::string method = choice(options, "method", quantize_methods());
  const bool searches = method != "rtn" && method != "recover";
  config.quantization.row_scales = searches ? "search" : "absolute_max";
  config.quantization.block_scales = searches ? "search" : "rule";
  // Scales that are given with the weights are stored as learned ones are.
  if (method != "rtn" && method != "mse") config.quantization.block_scales = "learned";
  CalibrationConfig& calibration = config.quantization.calibration;
  calibration.method = searches ? "least_error" : "maximum";
  if (options.count("calibration") > 0) {
    calibration.method = choice(options, "calibration", calibration_methods());
  }
  calibration.rows = options["rows"].as<int64_t>();
  config.sequence_length = options["sequence-length"].as<int64_t>();
  if (calibration.rows < 1) fail_usage("--rows ", calibration.rows, ": wanted 1 or more");
  if (config.sequence_length < 2) fail_usage("--sequence-length ", config.sequence_length, ": wanted 2 or more");
  if (options.count("data") > 0) config.data.train = {options["data"].as<std::string>()};
  if (options.count("chat-template") > 0) config.data.chat_template = options["chat-template"].as<std::string>();
  return config;
}

void write_untrained_checkpoint(const TrainConfig& config,
                                const std::function<void(const BaseModel& base, Gemma4Model& model)>& change,
                                const std::function<FakeQuantSet(const BaseModel& base, Gemma4Model& model)>& attach) {
  const at::NoGradGuard no_grad;
  const BaseModel base(config);
  std::vector<std::string> all;
  for (const WeightSpec& weight : base.table().weights()) all.push_back(weight.name);
  Gemma4Model model(base.config(), at::kFloat, base.without_memory(all, at::kFloat));
  base.fill(model, /*seed=*/0);
  for (auto& [name, parameter] : model.parameters()) {
    const bool is_float = parameter.defined() && parameter.scalar_type() == at::kFloat;
    if (is_float) parameter.copy_(parameter.to(at::kBFloat16));
  }
  if (change) change(base, model);
  FakeQuantSet fake_quant = attach ? attach(base, model) : base.attach_fake_quant(model);
  if (fake_quant.needs_calibration()) {
    if (config.data.train.empty()) {
      fail_usage("the plan \"", base.plan()->name,
                 "\" has static activations; name a file to calibrate them with: --data FILE");
    }
    TrainingData data(config, base.config());
    const auto rows = data.first_rows(config.quantization.calibration.rows);
    const auto edges = calibrate(model, fake_quant, rows, config.quantization.calibration);
    std::printf("%s\n", describe_calibration(edges).c_str());
  }
  CheckpointWriter(base, witness_prompts(*base.folder())).write(config.out, model, fake_quant, /*step=*/0);
}

}  // namespace qat
