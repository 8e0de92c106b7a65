#include "cli/compare_sensitivity.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/sensitivity_report.h"
#include "core/error.h"
#include "core/output_file.h"
#include "gemma4/model_folder.h"

namespace qat {

namespace {

const CommandHelp kHelp{
    "gemma-qat compare --sensitivity MODEL --plan PLAN --data FILE [--budget SIZE [--write-plan FILE.json]]",
    "Quantizes one part of a model at a time (all weights of a role, then all of a layer) under searched scales, and "
    "tells the KL divergence from the whole model: what suffers most. Activations stay as they are. With --budget it "
    "also proposes a plan: of all ways to give each role one of the schemes, the one that fits the size and whose "
    "parts' divergences have the least sum. That they add up is an approximation, so the proposal is measured as a "
    "whole, too.",
    "  gemma-qat compare --sensitivity gemma-4-E2B-it --plan q4_0 --data chats.choose.jsonl --rows 8\n"
    "  gemma-qat compare --sensitivity gemma-4-E2B-it --plan q4_0 --data chats.choose.jsonl --budget 3.2GB "
    "--write-plan mixed.json"};

void describe_options(cxxopts::Options& options) {
  options.add_options()("sensitivity", "measure parts of one model")(
      "plan", "name of a plan (gemma-qat configs list) or a file", cxxopts::value<std::string>())(
      "data", "JSONL or .txt file to measure on", cxxopts::value<std::string>())(
      "rows", "packed rows of it", cxxopts::value<int64_t>()->default_value("8"))(
      "sequence-length", "tokens of a row", cxxopts::value<int64_t>()->default_value("512"))(
      "schemes",
      "schemes that a role could have (default: q4_0, q6_k and q8_0, or int2, int4 and int8, as the plan has "
      "blocks or rows)",
      cxxopts::value<std::vector<std::string>>())("budget", "most that the weights may take: 350MB, 3.2GB",
                                                  cxxopts::value<std::string>())(
      "write-plan", "file for the proposed plan", cxxopts::value<std::string>())(
      "report", "HTML file to write; the figures go beside it as .json", cxxopts::value<std::string>())("json", "print JSON instead of tables")(
      "dtype", "bfloat16 or float32", cxxopts::value<std::string>()->default_value("float32"))(
      "threads", "0 = all cores", cxxopts::value<int>()->default_value("0"));
}

int64_t parse_size(const std::string& text) {
  size_t end = 0;
  double number = 0;
  try {
    number = std::stod(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  const std::string unit = text.substr(end);
  const std::map<std::string, double> units{{"", 1}, {"B", 1}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}};
  const auto found = units.find(unit);
  if (end == 0 || found == units.end() || !(number > 0) || number * found->second > 1e15) {
    fail_usage("--budget ", text, ": wanted a size such as 350MB or 3.2GB");
  }
  return static_cast<int64_t>(number * found->second);
}

std::vector<TrainingBatch> read_rows(const TrainConfig& config, const Gemma4Config& model, int64_t rows) {
  TrainingData data(config, model);
  return data.first_rows(rows);
}

}  // namespace

bool asks_for_sensitivity(const Arguments& arguments) {
  return std::find(arguments.begin(), arguments.end(), "--sensitivity") != arguments.end();
}

int compare_sensitivity(const Arguments& arguments) {
  const auto parsed = parse_arguments(arguments, kHelp, describe_options, 1, 1);
  if (parsed.helped) return 0;
  const auto text = [&](const char* name) {
    return parsed.options.count(name) > 0 ? parsed.options[name].as<std::string>() : std::string();
  };
  for (const char* name : {"plan", "data"}) {
    if (text(name).empty()) fail_usage("--", name, " is missing\n  usage: ", kHelp.usage);
  }
  if (!text("write-plan").empty() && text("budget").empty()) fail_usage("--write-plan: needs --budget");
  SensitivityInputs inputs{QuantPlan::load(text("plan")), {}, {}};
  if (parsed.options.count("schemes") > 0) inputs.schemes = parsed.options["schemes"].as<std::vector<std::string>>();
  if (!text("budget").empty()) inputs.budget = parse_size(text("budget"));
  TrainConfig config;
  config.model = parsed.positional[0];
  config.data.train = {text("data")};
  config.sequence_length = parsed.options["sequence-length"].as<int64_t>();
  const auto rows = parsed.options["rows"].as<int64_t>();
  if (rows < 1) fail_usage("--rows ", rows, ": wanted 1 or more");
  if (config.sequence_length < 2) fail_usage("--sequence-length ", config.sequence_length, ": wanted 2 or more");
  const auto type = parsed.options["dtype"].as<std::string>();
  if (type != "float32" && type != "bfloat16") fail_usage("--dtype ", type, ": wanted float32 or bfloat16");
  const auto dtype = type == "bfloat16" ? at::kBFloat16 : at::kFloat;
  if (const int threads = parsed.options["threads"].as<int>(); threads > 0) at::set_num_threads(threads);

  const ModelFolder folder(config.model);
  Gemma4Model model(folder.config(), dtype, readable_in_file(folder.table(), dtype));
  load_weights(model, folder.tensors());
  const SensitivityFindings findings = measure_sensitivity(model, read_rows(config, folder.config(), rows), inputs);

  const auto json = sensitivity_json(findings, inputs.plan.name);
  if (parsed.options.count("json") > 0) {
    std::printf("%s\n", json.dump(2).c_str());
  } else {
    std::printf("%s", sensitivity_text(findings).c_str());
  }
  if (!text("write-plan").empty()) {
    QuantPlan plan = findings.proposal->plan;
    plan.about = "Proposed by compare --sensitivity for " + config.model + " within " + text("budget") +
                 ", from the plan " + inputs.plan.name + ".";
    write_file(text("write-plan"), plan.to_json().dump(2) + "\n");
    std::fprintf(stderr, "plan: %s\n", text("write-plan").c_str());
  }
  if (!text("report").empty()) {
    write_file(text("report"), render_html(sensitivity_report(findings, inputs.plan.name, config.model, text("data"))));
    write_file(std::filesystem::path(text("report")).replace_extension(".json"), json.dump(1) + "\n");
    std::fprintf(stderr, "report: %s\n", text("report").c_str());
  }
  return 0;
}

}  // namespace qat
