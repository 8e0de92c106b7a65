#include "cli/comparison_cells.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "cli/comparison_environment.h"
#include "cli/measure.h"
#include "cli/open_model.h"
#include "core/error.h"
#include "core/json.h"
#include "core/mapped_file.h"
#include "core/output_file.h"
#include "core/process_memory.h"
#include "eval/text_summary.h"
#include "gemma4/model_folder.h"
#include "trainers/run_folder.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

fs::path record_of(const ComparisonConfig& config, const std::string& step) {
  return fs::path(config.out) / "finished" / step;
}

std::string export_step(const std::string& artifact, const std::string& step) {
  return join("export-", artifact, "-", step);
}

// What the choice of a method came from.
fs::path chosen_file(const ComparisonConfig& config) { return fs::path(config.out) / "chosen.json"; }

using Verb = int (*)(const Arguments& arguments);

std::string command_line(const char* verb, const Arguments& arguments) {
  std::string line = std::string("gemma-qat ") + verb;
  for (const std::string& argument : arguments) line += " " + argument;
  return line;
}

// Figures depend on the number of threads in their last bits, and a training run sets its own: whether it runs now or
// was finished before, what is quantized and measured afterwards has the threads of QAT.
void use_threads(const ComparisonConfig& config) {
  const int64_t threads = config.training_config(1).threads;
  if (threads > 0) at::set_num_threads(static_cast<int>(threads));
}

// Runs a step unless its record says that it was finished with the same command line.
int run_once(const ComparisonConfig& config, const std::string& name, const char* verb, Verb run,
             const Arguments& arguments, const Arguments& to_continue) {
  const fs::path record = record_of(config, name);
  const std::string line = command_line(verb, arguments);
  if (fs::exists(record)) {
    const std::string before = read_text_file(record);
    if (before == line + "\n") return 0;
    fail(record.string(), ": ", name, " was made with other settings\n  before: ", before, "  now:    ", line,
         "\nremove the file to make it again, or compare in another folder (out=FOLDER)");
  }
  std::printf("\n== %s\n", line.c_str());
  std::fflush(stdout);
  // A run refuses to start where too little is left, and steps before this one may have needed much.
  return_freed_memory();
  Arguments all = arguments;
  all.insert(all.end(), to_continue.begin(), to_continue.end());
  const auto start = std::chrono::steady_clock::now();
  const int code = run(all);
  use_threads(config);
  if (code != 0) return code;
  // What was exported before was another model.
  for (const char* artifact : {"gguf", "mobile-hf", "litertlm"}) {
    fs::remove(record_of(config, export_step(artifact, name)));
  }
  fs::create_directories(record.parent_path());
  record_step(environment_file(config), name,
              std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  write_file(record, line + "\n");
  return 0;
}

int export_once(const ComparisonConfig& config, const std::string& step, const std::string& checkpoint) {
  if (config.artifact == "none") return 0;
  const std::string out = config.measured_path(step, checkpoint);
  fs::create_directories(fs::path(out).parent_path());
  return run_once(config, export_step(config.artifact, step), "export", command_export,
                  {checkpoint, "--format", config.artifact, "--out", out}, {"--force"});
}

int train_once(const ComparisonConfig& config, int64_t seed, const std::string& best = {}) {
  const RunFolder folder(seed == 0 ? config.control_folder() : config.qat_folder(seed));
  const Arguments to_continue = folder.has_run() ? Arguments{"--resume"} : Arguments{};
  const std::string step = folder.path().filename().string();
  const int code = run_once(config, step, "train", command_train, config.training_arguments(seed, best), to_continue);
  if (code != 0 || seed == 0) return code;
  return export_once(config, step, config.qat_folder(seed) + "/checkpoint");
}

int quantize_once(const ComparisonConfig& config, const std::string& method) {
  const TrainConfig training = config.training_config(1);
  const QuantizeMethod wanted(method);
  Arguments arguments{"--model", config.reference(), "--plan", training.plan, "--method", wanted.name};
  if (!wanted.calibration.empty()) arguments.insert(arguments.end(), {"--calibration", wanted.calibration});
  if (training.kv_cache != "plan") arguments.insert(arguments.end(), {"--kv-cache", training.kv_cache});
  if (training.activations != "plan") arguments.insert(arguments.end(), {"--activations", training.activations});
  if (!config.calibration.empty()) {
    arguments.insert(arguments.end(), {"--data", config.calibration, "--rows", std::to_string(config.calibration_rows),
                                       "--sequence-length", std::to_string(config.calibration_length)});
  }
  arguments.insert(arguments.end(), {"--out", config.quantized_folder(method)});
  const std::string step = "ptq-" + method;
  if (!fs::exists(record_of(config, step))) fs::remove(chosen_file(config));
  const int code = run_once(config, step, "quantize", command_quantize, arguments, {"--force"});
  return code != 0 ? code : export_once(config, step, config.quantized_folder(method));
}

int measure_sensitivity_once(const ComparisonConfig& config) {
  if (config.sensitivity_rows == 0) return 0;
  const std::string& data = config.choose.empty() ? config.report.front() : config.choose.front();
  Arguments arguments{"--sensitivity",
                      config.reference(),
                      "--plan",
                      config.training_config(1).plan,
                      "--data",
                      data,
                      "--rows",
                      std::to_string(config.sensitivity_rows),
                      "--sequence-length",
                      std::to_string(config.calibration_length),
                      "--dtype",
                      config.dtype};
  std::set<std::string_view> schemes;
  const ModelFolder quantized(config.quantized_folder(config.methods.front()));
  for (const auto& [name, weight] : quantized.plan()->weights) {
    if (scheme(weight.scheme).is_quantized()) schemes.insert(scheme(weight.scheme).name);
  }
  for (const std::string_view name : schemes) arguments.insert(arguments.end(), {"--schemes", std::string(name)});
  arguments.insert(arguments.end(), {"--report", config.out + "/sensitivity.html"});
  return run_once(config, "sensitivity", "compare", command_compare, arguments, {});
}

// A checkpoint's schemes by weight, and its cache's: not where scales come from, which is the methods' own affair.
nlohmann::json layout_of(const std::string& folder) {
  const ModelFolder model(folder);
  nlohmann::json layout;
  if (!model.plan()) return layout;
  for (const auto& [name, weight] : model.plan()->weights) {
    layout[name] = {scheme(weight.scheme).name, weight.quantizes_input, weight.quantizes_output};
  }
  if (model.plan()->key_value_cache) layout["KV cache"] = scheme(*model.plan()->key_value_cache).name;
  return layout;
}

void check_same_layout(const ComparisonConfig& config) {
  const std::string first = config.qat_folder(1) + "/checkpoint";
  const nlohmann::json wanted = layout_of(first);
  for (const std::string& method : config.methods) {
    const std::string folder = config.quantized_folder(method);
    const nlohmann::json found = layout_of(folder);
    for (const auto& [name, entry] : wanted.items()) {
      if (found.value(name, nlohmann::json()) == entry) continue;
      fail(folder, ": ", name, " is stored as ", found.value(name, nlohmann::json()).dump(), ", in ", first, " as ",
           entry.dump(), ": models of different layouts are not compared");
    }
  }
}

// Mean KL per token.
double divergence_of(const std::string& path, OpenedModel& reference, const std::vector<Example>& documents,
                     const MeasureOptions& options, const ModelOptions& model_options) {
  OpenedModel model = open_model(path, model_options);
  const TextMeasures measures = measure_documents(model, &reference, documents, options);
  return summarize(measures).divergence->divergence.mean;
}

std::string upper_case(std::string text) {
  for (char& letter : text) letter = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
  return text;
}

}  // namespace

ModelOptions model_options_of(const ComparisonConfig& config) {
  ModelOptions options;
  options.dtype = config.dtype;
  if (config.artifact == "none") return options;
  options.arithmetic = config.arithmetic;
  options.tokenizer = config.model;
  const ModelFolder quantized(config.quantized_folder(config.methods.front()));
  if (config.artifact == "gguf" && quantized.plan()->key_value_cache) {
    options.kv_cache = scheme(*quantized.plan()->key_value_cache).name;
  }
  return options;
}

int make_missing_cells(const ComparisonConfig& config) {
  use_threads(config);
  if (config.has_control()) {
    if (const int code = train_once(config, 0); code != 0) return code;
  }
  for (const std::string& method : config.methods) {
    if (const int code = quantize_once(config, method); code != 0) return code;
  }
  const std::string best = config.qat_starts_from == "best" ? config.quantized_folder(best_method(config)) : "";
  for (int64_t seed = 1; seed <= config.seeds; ++seed) {
    if (const int code = train_once(config, seed, best); code != 0) return code;
  }
  check_same_layout(config);
  return measure_sensitivity_once(config);
}

std::string best_method(const ComparisonConfig& config) {
  if (config.methods.size() == 1) return config.methods.front();
  const fs::path file = chosen_file(config);
  const nlohmann::json settings{{"methods", config.methods},       {"files", config.choose},
                                {"dtype", config.dtype},           {"documents", config.documents},
                                {"max_tokens", config.max_tokens}, {"stride", config.stride},
                                {"artifact", config.artifact},     {"arithmetic", config.arithmetic}};
  if (fs::exists(file)) {
    const auto chosen = load_json(file);
    const auto still_holds = [&](const auto& item) {
      return chosen.contains(item.key()) && chosen[item.key()] == item.value();
    };
    if (std::ranges::all_of(settings.items(), still_holds)) return chosen.at("best").get<std::string>();
  }
  nlohmann::ordered_json figures;
  const ModelOptions model_options = model_options_of(config);
  OpenedModel reference = open_model(config.reference(), model_options);
  remember_passes(reference);
  MeasureOptions options;
  options.documents = config.documents;
  options.max_tokens = config.max_tokens;
  options.stride = config.stride;
  std::vector<Example> documents;
  for (const std::string& choose : config.choose) {
    std::vector<Example> more = load_documents(reference, choose, options);
    std::move(more.begin(), more.end(), std::back_inserter(documents));
  }
  for (const std::string& method : config.methods) {
    const std::string path = config.measured_path("ptq-" + method, config.quantized_folder(method));
    figures[method] = divergence_of(path, reference, documents, options, model_options);
    std::printf("KL on the choose files: %s %.4g\n", method.c_str(), figures[method].get<double>());
    std::fflush(stdout);
  }
  const auto best = std::min_element(
      config.methods.begin(), config.methods.end(),
      [&](const std::string& a, const std::string& b) { return figures[a].get<double>() < figures[b].get<double>(); });
  nlohmann::ordered_json chosen{{"best", *best}, {"kl", figures}};
  chosen.update(settings);
  write_file(file, chosen.dump(1) + "\n");
  return *best;
}

std::vector<ComparedModel> compared_models(const ComparisonConfig& config, const std::string& best) {
  std::vector<ComparedModel> models;
  models.push_back(
      {"BF16", config.reference(), config.has_control() ? config.control_folder() + "/metrics.jsonl" : std::string()});
  const auto add_method = [&](const std::string& method) {
    models.push_back({upper_case(method), config.measured_path("ptq-" + method, config.quantized_folder(method)), ""});
  };
  add_method(best);
  for (int64_t seed = 1; seed <= config.seeds; ++seed) {
    const std::string folder = config.qat_folder(seed);
    models.push_back({config.seeds == 1 ? "QAT" : join("QAT-", seed),
                      config.measured_path(join("qat-", seed), folder + "/checkpoint"), folder + "/metrics.jsonl",
                      seed});
  }
  for (const std::string& method : config.methods) {
    if (method != best) add_method(method);
  }
  if (config.has_control()) models.push_back({"BASE", config.model, "", /*seed=*/0, /*is_judged=*/false});
  return models;
}

}  // namespace qat
