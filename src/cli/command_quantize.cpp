#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdio>

#include "cli/command.h"
#include "cli/witness_prompts.h"
#include "core/error.h"
#include "trainers/base_model.h"
#include "trainers/calibration.h"
#include "trainers/checkpoint_writer.h"
#include "trainers/training_data.h"

namespace qat {

namespace {

namespace fs = std::filesystem;

const CommandHelp kHelp{
    "gemma-qat quantize --model FOLDER --plan PLAN [--method rtn|mse] [--data FILE] --out CHECKPOINT",
    "Quantizes a model without training: the baseline that QAT is compared with. Writes the same kind of checkpoint as "
    "train, "
    "so export, verify, eval and compare treat both alike. Method rtn rounds every value to the nearest code, under "
    "the "
    "largest magnitude of its row and of its activation; mse searches the scales of int2, int4 and int8 rows and of "
    "static "
    "activations for the least squared error. Plans with static activations need --data to calibrate them.",
    "  gemma-qat quantize --model gemma-4-E2B-it --plan q4_0 --out runs/e2b-rtn\n"
    "  gemma-qat quantize --model gemma-4-E2B-it --plan q4_0-google --kv-cache q8_0 --out runs/e2b-rtn-kv8\n"
    "  gemma-qat quantize --model gemma-4-E2B-it --plan mobile-e2b --method mse --data chats.jsonl --out runs/e2b-mse"};

// One of `known`, or Error (usage).
std::string choice(const cxxopts::ParseResult& options, const char* name, const std::vector<std::string>& known) {
  const auto value = options[name].as<std::string>();
  if (std::find(known.begin(), known.end(), value) != known.end()) return value;
  std::string list;
  for (const std::string& candidate : known) list += (list.empty() ? "" : ", ") + candidate;
  fail_usage("--", name, " ", value, ": no such choice (known: ", list, ")");
}

TrainConfig read_config(const cxxopts::ParseResult& options) {
  TrainConfig config;
  config.model = options["model"].as<std::string>();
  config.plan = options["plan"].as<std::string>();
  if (options.count("kv-cache") > 0) config.kv_cache = choice(options, "kv-cache", {"none", "q8_0", "int8"});
  if (options.count("activations") > 0) config.activations = choice(options, "activations", {"none", "input"});
  const bool searches = choice(options, "method", {"rtn", "mse"}) == "mse";
  config.quantization.row_scales = searches ? "search" : "absolute_max";
  CalibrationConfig& calibration = config.quantization.calibration;
  calibration.method = searches ? "least_error" : "maximum";
  if (options.count("calibration") > 0) {
    calibration.method = choice(options, "calibration", {"least_error", "percentile", "maximum"});
  }
  calibration.rows = options["rows"].as<int64_t>();
  config.sequence_length = options["sequence-length"].as<int64_t>();
  if (calibration.rows < 1) fail_usage("--rows ", calibration.rows, ": wanted 1 or more");
  if (config.sequence_length < 2) fail_usage("--sequence-length ", config.sequence_length, ": wanted 2 or more");
  if (options.count("data") > 0) config.data.train = {options["data"].as<std::string>()};
  if (options.count("chat-template") > 0) config.data.chat_template = options["chat-template"].as<std::string>();
  return config;
}

}  // namespace

int command_quantize(const Arguments& arguments) {
  const auto parsed = parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) {
        options.add_options()("model", "model folder with BF16 weights", cxxopts::value<std::string>())(
            "plan", "name of a plan (gemma-qat configs list) or a file", cxxopts::value<std::string>())(
            "method", "rtn or mse", cxxopts::value<std::string>()->default_value("rtn"))(
            "data", "file to calibrate static activations with (JSONL or text)", cxxopts::value<std::string>())(
            "rows", "packed rows of it that are looked at", cxxopts::value<int64_t>()->default_value("32"))(
            "sequence-length", "tokens of a row", cxxopts::value<int64_t>()->default_value("512"))(
            "calibration", "least_error, percentile or maximum, instead of the method's",
            cxxopts::value<std::string>())("activations", "none, or input for inputs only, instead of the plan's",
                                           cxxopts::value<std::string>())(
            "chat-template", "template of conversations in --data, where the model has none",
            cxxopts::value<std::string>())("kv-cache", "none, q8_0 or int8 instead of the plan's",
                                           cxxopts::value<std::string>())(
            "out", "checkpoint folder to write", cxxopts::value<std::string>())("force", "replace it if it is there");
      },
      0, 0);
  if (parsed.helped) return 0;
  for (const char* name : {"model", "plan", "out"}) {
    if (parsed.options.count(name) == 0) fail_usage("--", name, " is missing\n  usage: ", kHelp.usage);
  }
  const fs::path out = parsed.options["out"].as<std::string>();
  if (fs::exists(out) && parsed.options.count("force") == 0)
    fail_usage(out.string(), ": is there already; --force replaces it");

  const at::NoGradGuard no_grad;
  const TrainConfig config = read_config(parsed.options);
  const BaseModel base(config);
  Gemma4Model model(base.config(), at::kFloat);
  base.fill(model, /*seed=*/0);
  for (auto& [name, parameter] : model.parameters()) parameter.copy_(parameter.to(at::kBFloat16));
  FakeQuantSet fake_quant = base.attach_fake_quant(model);
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
  CheckpointWriter(base, witness_prompts(*base.folder())).write(out, model, fake_quant, /*step=*/0);
  std::printf("wrote %s (plan %s, method %s)\n", out.c_str(), base.plan()->name.c_str(),
              parsed.options["method"].as<std::string>().c_str());
  return 0;
}

}  // namespace qat
