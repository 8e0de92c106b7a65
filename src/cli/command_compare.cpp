#include <chrono>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/compare_sensitivity.h"
#include "cli/comparison_cells.h"
#include "cli/comparison_environment.h"
#include "cli/measure.h"
#include "cli/open_model.h"
#include "core/error.h"
#include "core/output_file.h"
#include "eval/comparison_report.h"
#include "eval/generate.h"
#include "eval/measure_report.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

const CommandHelp kHelp{
    "gemma-qat compare NAME=MODEL NAME=MODEL ... --data FILE [--questions FILE] [--report FILE.html]\n"
    "         gemma-qat compare CONFIG [key=value ...]\n"
    "         gemma-qat compare --sensitivity MODEL --plan PLAN --data FILE (--help tells more)",
    "Measures several models on the same files and prints one table: size, bits per weight, perplexity, KL divergence from the "
    "first model, multiple-choice accuracy, and how much of the first model's greedy continuations they reproduce; then what "
    "these figures allow to be said. Intervals are 95 %, paired over documents. --report writes the tables and plots as one "
    "HTML file, and their figures beside it as JSON; --metrics NAME=FILE adds the curves of training runs "
    "(metrics.jsonl); --items FILE keeps what was measured of each document and question.\n"
    "With a configuration (configs/eval; `gemma-qat configs explain compare` lists its fields) it first trains and quantizes "
    "what is to be compared: a BF16 control, several methods without training, QAT with several seeds, all with the same "
    "schemes. The best method is chosen on other files than those reported from. What is finished in `out` is kept, so a "
    "comparison that was interrupted goes on.",
    "  gemma-qat compare BF16=runs/bf16/checkpoint RTN=runs/rtn QAT=runs/qat/checkpoint --data report.jsonl\n"
    "  gemma-qat compare BF16=runs/bf16/checkpoint QAT=qat.gguf --data report.jsonl --report report.html\n"
    "  gemma-qat compare configs/eval/quickstart.json"};

struct Named {
  std::string name;
  std::string path;
};

Named parse_named(const std::string& argument) {
  const size_t equals = argument.find('=');
  if (equals == std::string::npos || equals == 0) fail_usage("\"", argument, "\": wanted NAME=PATH");
  return {argument.substr(0, equals), argument.substr(equals + 1)};
}

struct Inputs {
  std::vector<std::string> data;
  std::string questions;
  std::string items;  // file for JSON lines; empty: none
  int64_t prompts = 0;
  int64_t max_new = 0;
  MeasureOptions measure;
};

// The beginnings of the documents up to their first trained token: what a user would ask.
std::vector<std::vector<int32_t>> prompts_of(const std::vector<Example>& documents, int64_t count) {
  std::vector<std::vector<int32_t>> prompts;
  for (const Example& document : documents) {
    if (static_cast<int64_t>(prompts.size()) == count) break;
    const auto first = std::find(document.trained.begin(), document.trained.end(), uint8_t{1}) - document.trained.begin();
    const auto length = std::max<std::ptrdiff_t>(first, std::min<std::ptrdiff_t>(8, static_cast<std::ptrdiff_t>(document.tokens.size())));
    prompts.emplace_back(document.tokens.begin(), document.tokens.begin() + length);
  }
  return prompts;
}

using Files = std::vector<std::vector<Example>>;

Files load_files(const OpenedModel& opened, const Inputs& inputs) {
  Files files;
  for (const std::string& file : inputs.data) files.push_back(load_documents(opened, file, inputs.measure));
  return files;
}

// What the reference answers, made once for all models.
struct Greedy {
  std::vector<std::vector<int32_t>> prompts;
  std::vector<std::vector<int32_t>> continuations;
};

Greedy answers_of(OpenedModel& reference, const std::vector<Example>& documents, const Inputs& inputs) {
  Greedy greedy{prompts_of(documents, inputs.prompts), {}};
  greedy.continuations = greedy_continuations(*reference.model, greedy.prompts, inputs.max_new, reference.stop_tokens);
  return greedy;
}

// `files` are tokenized for the reference. Appends what was measured of each document and question to `items`, and how
// fast text was to the file `environment`, unless it is empty.
MeasuredModel measure_model(const Named& named, OpenedModel& opened, OpenedModel& reference, const Files& files,
                            const Greedy& greedy, const Inputs& inputs, const fs::path& environment,
                            std::string& items) {
  std::fprintf(stderr, "measuring %s (%s)\n", named.name.c_str(), named.path.c_str());
  MeasuredModel model;
  model.name = named.name;
  model.path = named.path;
  model.bytes = opened.weight_bytes;
  model.bits_per_weight = opened.bits_per_weight;
  model.own_tokenizer = !same_tokens(opened, reference);
  const Files own_files = model.own_tokenizer ? load_files(opened, inputs) : Files();
  std::vector<TextMeasures> measures;
  const auto start = std::chrono::steady_clock::now();
  for (size_t i = 0; i < files.size(); ++i) {
    measures.push_back(measure_documents(opened, model.own_tokenizer ? nullptr : &reference,
                                         model.own_tokenizer ? own_files[i] : files[i], inputs.measure));
    model.files.push_back({inputs.data[i], measures.back().documents.size()});
    items += document_items(measures.back(), inputs.data[i], named.name);
  }
  model.text = joined(measures);
  if (!environment.empty()) {
    int64_t tokens = 0;
    for (const DocumentMeasures& document : model.text.documents) tokens += document.tokens;
    record_step(environment, "measure-" + named.name,
                std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), tokens);
  }
  if (!inputs.questions.empty()) {
    model.choices = measure_questions(opened, inputs.questions, inputs.measure);
    items += choice_items(model.choices, inputs.questions, named.name);
  }
  if (inputs.prompts == 0 || model.own_tokenizer) return model;
  model.greedy_agreement =
      &opened == &reference
          ? 1.0
          : agreement_share(greedy_agreement(*opened.model, greedy.prompts, greedy.continuations));
  return model;
}

DataWarning tokenizer_warning(const MeasuredModel& model, const std::string& first) {
  DataWarning warning{"own-tokenizer", model.name + " has another tokenizer than " + first +
                                           ": KL and loss are not compared, accuracy and bits per byte can be"};
  print_warnings(std::span(&warning, 1));
  return warning;
}

// What a configuration wants compared, as arguments of this verb once its models are there.
Arguments arguments_of(const ComparisonConfig& config) {
  Arguments arguments, runs;
  for (const ComparedModel& model : compared_models(config, best_method(config))) {
    arguments.push_back(model.name + "=" + model.path);
    if (!model.metrics.empty()) runs.insert(runs.end(), {"--metrics", model.name + "=" + model.metrics});
  }
  for (const std::string& file : config.report) arguments.insert(arguments.end(), {"--data", file});
  for (const std::string& file : config.training_config(1).data.train) {
    arguments.insert(arguments.end(), {"--training-data", file});
  }
  if (!config.questions.empty()) arguments.insert(arguments.end(), {"--questions", config.questions});
  arguments.insert(arguments.end(),
                   {"--documents", std::to_string(config.documents), "--max-tokens", std::to_string(config.max_tokens),
                    "--stride", std::to_string(config.stride), "--prompts", std::to_string(config.prompts)});
  const ModelOptions options = model_options_of(config);
  arguments.insert(arguments.end(), {"--dtype", options.dtype, "--arithmetic", options.arithmetic});
  if (options.kv_cache != "default") arguments.insert(arguments.end(), {"--kv-cache", options.kv_cache});
  if (!options.tokenizer.empty()) arguments.insert(arguments.end(), {"--tokenizer", options.tokenizer});
  arguments.insert(arguments.end(), runs.begin(), runs.end());
  arguments.insert(arguments.end(), {"--report", config.out + "/report.html"});
  return arguments;
}

// How the models that it compares came about.
ComparisonOrigin origin_of(const ComparisonConfig& config) {
  ComparisonOrigin origin;
  for (const ComparedModel& model : compared_models(config, best_method(config))) {
    if (model.seed > 0) origin.seeds.push_back(model.name);
    if (!model.is_judged) origin.aside.push_back(model.name);
  }
  origin.methods = config.methods.size();
  origin.chosen_on = config.choose;
  return origin;
}

ParsedArguments parse(const Arguments& arguments) {
  return parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) {
        options.add_options()("data", "JSONL or .txt file for perplexity, KL and greedy prompts; may be given several times",
                              cxxopts::value<std::vector<std::string>>())(
            "questions", "multiple-choice JSONL", cxxopts::value<std::string>())(
            "report", "HTML file to write; the figures go beside it as .json", cxxopts::value<std::string>())(
            "items", "file for what was measured of each document and question, as JSON lines", cxxopts::value<std::string>())(
            "metrics", "NAME=metrics.jsonl of a training run, for the report", cxxopts::value<std::vector<std::string>>())(
            "json", "print JSON instead of tables")(
            "prompts", "prompts for greedy agreement", cxxopts::value<int64_t>()->default_value("32"))(
            "max-new", "tokens per greedy continuation", cxxopts::value<int64_t>()->default_value("32"));
        describe_measure_options(options);
        describe_model_options(options);
      },
      1, -1);
}

Inputs read_inputs(const cxxopts::ParseResult& options) {
  if (options.count("data") == 0) fail_usage("--data is missing\n  usage: ", kHelp.usage);
  const auto text_option = [&](const char* name) {
    return options.count(name) > 0 ? options[name].as<std::string>() : std::string();
  };
  return {options["data"].as<std::vector<std::string>>(),
          text_option("questions"),
          text_option("items"),
          options["prompts"].as<int64_t>(),
          options["max-new"].as<int64_t>(),
          read_measure_options(options)};
}

std::vector<ComparisonFacts::TrainingRun> read_runs(const cxxopts::ParseResult& options) {
  std::vector<ComparisonFacts::TrainingRun> runs;
  if (options.count("metrics") == 0) return runs;
  for (const auto& argument : options["metrics"].as<std::vector<std::string>>()) {
    const Named run = parse_named(argument);
    runs.push_back({run.name, run.path});
  }
  return runs;
}

void write_results(const std::vector<MeasuredModel>& models, const ComparisonFacts& facts,
                   const cxxopts::ParseResult& options) {
  const auto json = comparison_report_json(models, facts);
  const bool as_json = options.count("json") > 0;
  if (as_json) {
    std::printf("%s\n", json.dump(2).c_str());
  } else {
    const char* separator = "";
    for (const ComparisonSection& section : comparison_sections(models)) {
      std::printf("%s%s", separator, format_table(section.table).c_str());
      separator = "\n";
    }
  }
  if (options.count("report") == 0) return;
  const auto path = options["report"].as<std::string>();
  write_file(path, render_html(make_comparison_report(models, facts)));
  write_file(fs::path(path).replace_extension(".json"), json.dump(1) + "\n");
  std::fprintf(as_json ? stderr : stdout, "\nreport: %s\n", path.c_str());
}

// What a configuration knows beside the arguments that it amounts to.
struct Configured {
  ComparisonOrigin origin;
  fs::path environment;
  std::string sensitivity;
};

int compare_models(const ParsedArguments& parsed, const Configured& known) {
  const auto& [origin, environment, sensitivity] = known;
  const Inputs inputs = read_inputs(parsed.options);
  ComparisonFacts facts;
  facts.origin = origin;
  facts.sensitivity = sensitivity;
  facts.runs = read_runs(parsed.options);
  const auto warn = [&](const std::vector<DataWarning>& more) {
    facts.warnings.insert(facts.warnings.end(), more.begin(), more.end());
  };
  const ModelOptions model_options = read_model_options(parsed.options);
  const Named first = parse_named(parsed.positional[0]);
  OpenedModel reference = open_model(first.path, model_options);
  remember_passes(reference);
  for (const std::string& file : inputs.data) warn(check_data(file, inputs.measure));
  if (!inputs.questions.empty()) {
    warn(check_data(inputs.questions, inputs.measure));
    facts.questions = load_questions(inputs.questions, inputs.measure);
  }

  const Files files = load_files(reference, inputs);
  std::string items;
  std::vector<MeasuredModel> models{measure_model(first, reference, reference, files, {}, inputs, environment, items)};
  const auto few = document_warnings(models[0].text);
  print_warnings(few);
  warn(few);
  Greedy greedy;
  if (parsed.positional.size() > 1) greedy = answers_of(reference, files.front(), inputs);
  for (size_t i = 1; i < parsed.positional.size(); ++i) {
    const Named named = parse_named(parsed.positional[i]);
    OpenedModel opened = open_model(named.path, model_options);
    models.push_back(measure_model(named, opened, reference, files, greedy, inputs, environment, items));
    models.back().is_judged = std::ranges::find(origin.aside, named.name) == origin.aside.end();
    if (models.back().own_tokenizer) warn({tokenizer_warning(models.back(), first.name)});
  }
  if (!inputs.items.empty()) write_file(inputs.items, items);
  write_results(models, facts, parsed.options);
  return 0;
}

}  // namespace

int command_compare(const Arguments& arguments) {
  if (asks_for_sensitivity(arguments)) return compare_sensitivity(arguments);
  const auto parsed = parse(arguments);
  if (parsed.helped) return 0;
  const std::vector<std::string>& positional = parsed.positional;
  if (positional.front().find('=') != std::string::npos) return compare_models(parsed, {});
  const auto config = ComparisonConfig::load(positional.front(), {positional.begin() + 1, positional.end()});
  if (const int code = make_missing_cells(config); code != 0) return code;
  return compare_models(parse(arguments_of(config)),
                        {origin_of(config), environment_file(config), config.sensitivity_file()});
}

}  // namespace qat
