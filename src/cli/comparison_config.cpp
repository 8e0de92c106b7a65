#include "cli/comparison_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/untrained_checkpoint.h"
#include "core/comma_list.h"
#include "core/error.h"

namespace qat {
namespace fs = std::filesystem;

QuantizeMethod::QuantizeMethod(const std::string& text) : name(text.substr(0, text.find('+'))) {
  if (name.size() < text.size()) calibration = text.substr(name.size() + 1);
}

void ComparisonConfig::visit_fields(FieldVisitor& visitor) {
  visitor.field("about", about, "for readers only");
  visitor.field("model", model, "folder of the BF16 model that everything starts from");
  visitor.field("out", out, "folder for runs, checkpoints and the report; what is finished there is kept");
  visitor.field("control", control,
                "training configuration of the BF16 control, from which KL is measured and which is quantized without "
                "training; empty: the model itself takes its place");
  visitor.field("qat", qat, "training configuration of QAT; its plan and KV cache are those of all quantized models");
  visitor.choice("qat_starts_from", qat_starts_from, {"base", "control", "best"},
                 "the model that QAT trains; best: what the best method without training wrote");
  visitor.field("settings", settings, "key=value for every training run");
  visitor.field("qat_settings", qat_settings, "key=value for QAT alone, after those for every run");
  visitor.field("seeds", seeds, "QAT runs, with the seeds 1, 2, ...");
  visitor.field("methods", methods,
                "methods of `quantize`, of which the one with the least KL on `choose` is compared with QAT; mse+percentile is "
                "mse with that --calibration of static activations");
  visitor.field("calibration", calibration, "data for methods that look at activations, and for static activations");
  visitor.field("calibration_rows", calibration_rows, "packed rows of it");
  visitor.field("calibration_length", calibration_length, "tokens of a row");
  visitor.field("choose", choose, "files that the best method is chosen on; nothing of them is reported");
  visitor.field("report", report, "files that all figures come from");
  visitor.field("questions", questions, "multiple-choice questions for the report");
  visitor.field("documents", documents, "measure only the first so many documents of a file, 0 = all");
  visitor.field("max_tokens", max_tokens, "longest window of a document");
  visitor.field("stride", stride,
                "tokens between such windows, which then overlap and count what none before did; 0: no overlap");
  visitor.field("prompts", prompts, "prompts for greedy agreement, 0 = none");
  visitor.choice("dtype", dtype, {"float32", "bfloat16"},
                 "in which the models are measured, whatever they were trained in");
  visitor.field("sensitivity_rows", sensitivity_rows,
                "packed rows of the first of `choose` (or `report`) on which the unquantized model is measured with one role, one "
                "layer quantized at a time, for the report; 0: not measured");
  visitor.choice("artifact", artifact, {"none", "gguf", "mobile-hf", "litertlm"},
                 "what quantized models are exported to and measured from, by the reference inference; none: they are "
                 "measured from their checkpoints");
  visitor.choice("arithmetic", arithmetic, {"float", "device"},
                 "of artifacts: what training computed, or llama.cpp's or LiteRT's kernels");
}

namespace {

void check(const ComparisonConfig& config, std::vector<std::string>& problems) {
  const auto wants = [&](bool holds, const std::string& problem) {
    if (!holds) problems.push_back(problem);
  };
  const auto wants_file = [&](const char* field, const std::string& file) {
    wants(fs::exists(file), join(field, ": ", file, " does not exist"));
  };
  for (const auto& [field, value] :
       {std::pair("model", &config.model), std::pair("out", &config.out), std::pair("qat", &config.qat)}) {
    wants(!value->empty(), join(field, ": is missing"));
  }
  if (!config.model.empty()) wants_file("model", config.model);
  wants(config.seeds >= 1, join("seeds: ", config.seeds, ", wanted 1 or more"));
  wants(!config.methods.empty(), "methods: wanted one at least");
  const auto wants_known = [&](const std::string& name, const std::vector<std::string>& known) {
    wants(std::ranges::find(known, name) != known.end(),
          join("methods: there is no ", name, " (known: ", comma_list(known), ")"));
  };
  for (const std::string& text : config.methods) {
    const QuantizeMethod method(text);
    wants_known(method.name, quantize_methods());
    if (text != method.name) wants_known(method.calibration, calibration_methods());
  }
  wants(std::set(config.methods.begin(), config.methods.end()).size() == config.methods.size(),
        "methods: one is named twice");
  wants(config.sensitivity_rows >= 0, join("sensitivity_rows: ", config.sensitivity_rows, ", wanted 0 or more"));
  wants(config.stride == 0 || (config.stride > 0 && config.stride < config.max_tokens),
        join("stride: ", config.stride, ", wanted 0 or less than max_tokens, ", config.max_tokens));
  wants(!config.report.empty(), "report: wanted one file at least");
  wants(config.methods.size() < 2 || !config.choose.empty(),
        "choose: wanted files to choose the best of several methods on, others than those of `report`");
  wants(config.qat_starts_from != "control" || config.has_control(), "qat_starts_from: there is no control");
  for (const std::string& file : config.choose) {
    wants_file("choose", file);
    wants(std::find(config.report.begin(), config.report.end(), file) == config.report.end(),
          join("choose: ", file, " is reported from, too, so the choice would flatter the figures"));
  }
  for (const std::string& file : config.report) wants_file("report", file);
  if (!config.questions.empty()) wants_file("questions", config.questions);
  if (!config.calibration.empty()) wants_file("calibration", config.calibration);
}

}  // namespace

ComparisonConfig ComparisonConfig::load(const fs::path& path, const std::vector<std::string>& overrides) {
  if (!fs::is_regular_file(path)) {
    fail_usage(path.string(), ": there is no such configuration; examples are in configs/eval");
  }
  nlohmann::json document = load_json(path);
  for (const std::string& override : overrides) apply_override(document, override);
  ComparisonConfig config;
  std::vector<std::string> problems;
  read_fields(
      document, [&](FieldVisitor& visitor) { config.visit_fields(visitor); }, problems);
  if (problems.empty()) check(config, problems);
  std::string list;
  for (const std::string& problem : problems) list += "\n  " + problem;
  if (!problems.empty()) fail_usage(path.string(), ":", list);
  for (int64_t seed = config.has_control() ? 0 : 1; seed <= config.seeds; ++seed) {
    const TrainConfig training = config.training_config(seed);
    if (training.is_quantized() == (seed > 0)) continue;
    fail_usage(
        path.string(), ": ", seed == 0 ? "control" : "qat", ": ", seed == 0 ? config.control : config.qat,
        seed == 0 ? " has a plan, and the control is plain BF16" : " has no plan, so nothing would be quantized");
  }
  return config;
}

std::string ComparisonConfig::measured_path(const std::string& step, const std::string& checkpoint) const {
  if (artifact == "none") return checkpoint;
  return join(out, "/exported/", step, artifact == "mobile-hf" ? "" : "." + artifact);
}

TrainConfig ComparisonConfig::training_config(int64_t seed) const {
  std::vector<std::string> overrides = settings_of(seed);
  overrides.push_back("model=" + model);
  overrides.push_back("out=" + (seed == 0 ? control_folder() : qat_folder(seed)));
  return TrainConfig::load(seed == 0 ? control : qat, overrides);
}

std::vector<std::string> ComparisonConfig::settings_of(int64_t seed) const {
  std::vector<std::string> result = settings;
  if (seed > 0) result.insert(result.end(), qat_settings.begin(), qat_settings.end());
  return result;
}

std::vector<std::string> ComparisonConfig::training_arguments(int64_t seed, const std::string& best) const {
  const bool from_base = seed == 0 || qat_starts_from == "base";
  const bool from_best = seed > 0 && qat_starts_from == "best";
  const TrainConfig given = training_config(seed);
  std::vector<std::string> arguments{seed == 0 ? control : qat};
  const auto more = settings_of(seed);
  arguments.insert(arguments.end(), more.begin(), more.end());
  const auto set = [&](const char* field, const std::string& value) { arguments.push_back(join(field, "=", value)); };
  set("model", from_base ? model : from_best ? best : reference());
  set("out", given.out);
  set("seed", std::to_string(std::max<int64_t>(seed, 1)));
  if (from_best && given.distills() && given.teacher.empty()) set("teacher", reference());
  if (from_best && given.wants_kl() && given.eval.reference.empty()) set("eval.reference", reference());
  return arguments;
}

}  // namespace qat
