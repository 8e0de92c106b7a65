#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <tuple>

#include "cli/command.h"
#include "cli/compare_sensitivity.h"
#include "cli/comparison_cells.h"
#include "cli/measure.h"
#include "cli/open_model.h"
#include "core/error.h"
#include "core/output_file.h"
#include "eval/comparison.h"
#include "eval/generate.h"
#include "eval/html_report.h"
#include "eval/measure_report.h"
#include "eval/table.h"

namespace qat {

namespace {

const CommandHelp kHelp{
    "gemma-qat compare NAME=MODEL NAME=MODEL ... --data FILE [--questions FILE] [--report FILE.html]\n"
    "         gemma-qat compare CONFIG [key=value ...]\n"
    "         gemma-qat compare --sensitivity MODEL --plan PLAN --data FILE (--help tells more)",
    "Measures several models on the same files and prints one table: size, bits per weight, perplexity, KL divergence from the "
    "first model, multiple-choice accuracy, and how much of the first model's greedy continuations they reproduce; then what "
    "these figures allow to be said. Intervals are 95 %, paired over documents. --report writes the tables and plots as one "
    "HTML file, and their figures beside it as JSON; --metrics NAME=FILE adds the curves of training runs "
    "(metrics.jsonl).\n"
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

// `files` are tokenized for the reference.
MeasuredModel measure_model(const Named& named, OpenedModel& opened, OpenedModel& reference, const Files& files,
                            const Inputs& inputs) {
  std::fprintf(stderr, "measuring %s (%s)\n", named.name.c_str(), named.path.c_str());
  MeasuredModel model;
  model.name = named.name;
  model.path = named.path;
  model.bytes = opened.weight_bytes;
  model.bits_per_weight = opened.bits_per_weight;
  model.own_tokenizer = !same_tokens(opened, reference);
  const Files own_files = model.own_tokenizer ? load_files(opened, inputs) : Files();
  std::vector<TextMeasures> measures;
  for (const auto& documents : model.own_tokenizer ? own_files : files) {
    measures.push_back(
        measure_documents(opened, model.own_tokenizer ? nullptr : &reference, documents, inputs.measure));
  }
  model.text = joined(measures);
  if (!inputs.questions.empty()) model.choices = measure_questions(opened, inputs.questions, inputs.measure);
  if (inputs.prompts == 0 || model.own_tokenizer) return model;
  if (&opened == &reference) {
    model.greedy_agreement = 1;
  } else {
    const auto prompts = prompts_of(files.front(), inputs.prompts);
    model.greedy_agreement = agreement_share(
        greedy_agreement(*opened.model, *reference.model, prompts, inputs.max_new, reference.stop_tokens));
  }
  return model;
}

DataWarning tokenizer_warning(const MeasuredModel& model, const std::string& first) {
  DataWarning warning{"own-tokenizer", model.name + " has another tokenizer than " + first +
                                           ": KL and loss are not compared, accuracy and bits per byte can be"};
  print_warnings(std::span(&warning, 1));
  return warning;
}

std::vector<double> per_document(const MeasuredModel& model) {
  std::vector<double> values;
  for (const DocumentMeasures& document : model.text.documents) {
    values.push_back(document.tokens > 0 ? document.divergence / static_cast<double>(document.tokens) : 0);
  }
  return values;
}

// Printed to the terminal and put into the report.
struct Section {
  std::string heading;
  std::string explanation;
  Table table;
};

std::vector<Section> sections_of(const std::vector<MeasuredModel>& models) {
  std::vector<Section> sections{{"Results", "", results_table(models)}};
  if (models.size() >= 3) sections.push_back({"Pairs", "", pairs_table(models)});
  sections.push_back({"Tails",
                      "Percentiles of KL over tokens; Δp is the shift of the right token's probability. Means hide what "
                      "goes wrong rarely and badly.",
                      tails_table(models)});
  const auto judgements = judge_models(models);
  if (!judgements.empty()) {
    sections.push_back({"What can be said",
                        "A difference counts as shown if its p-value stays below 0.05 after Holm's correction over all "
                        "lines (KL and loss: bootstrap over documents; accuracy: McNemar's exact test). No difference "
                        "shown does not mean equal: the intervals say how large one may be.",
                        verdicts_table(judgements)});
  }
  const auto gaps = recovered_gaps(models);
  if (!gaps.empty()) {
    sections.push_back({"How much of the loss is regained",
                        "Of what " + models[1].name + " lost against " + models[0].name +
                            "; not given where no loss is shown, since the ratio would be noise.",
                        recovery_table(gaps, models)});
  }
  return sections;
}

Report make_report(const std::vector<MeasuredModel>& rows, const std::vector<Section>& sections,
                   const std::vector<DataWarning>& warnings, const std::vector<Named>& metrics, const Inputs& inputs) {
  Report report;
  report.title = "gemma-qat: comparison";
  std::string data;
  for (const std::string& file : inputs.data) data += (data.empty() ? "" : ", ") + file;
  const TextSummary first = summarize(rows[0].text);
  report.introduction = {"All models were measured on the same documents (" + data + "), " +
                         std::to_string(first.documents) + " documents with " + std::to_string(first.tokens) +
                         " counted tokens. KL is measured from " + rows[0].name +
                         ". Intervals are 95 %, by bootstrap over documents."};
  for (const DataWarning& warning : warnings) {
    report.introduction.push_back("Warning (" + warning.name + "): " + warning.text + ".");
  }
  for (const Section& section : sections) {
    ReportSection entry{section.heading, {}};
    if (!section.explanation.empty()) entry.items.emplace_back(section.explanation);
    entry.items.emplace_back(section.table);
    report.sections.push_back(std::move(entry));
  }

  if (!metrics.empty()) {
    ReportSection training{"Training", {}};
    for (const auto& [kind, field, label] : {std::tuple("step", "loss", "training loss"), std::tuple("eval", "kl", "held-out KL"),
                                             std::tuple("eval", "loss", "held-out loss")}) {
      LinePlot plot{{label, "step", label}, AxisScale::Linear, {}};
      for (const Named& run : metrics) {
        const Series series = read_metric_series(run.path, kind, field, run.name);
        if (!series.x.empty()) plot.series.push_back(thinned(series));
      }
      if (!plot.series.empty()) training.items.emplace_back(std::move(plot));
    }
    report.sections.push_back(std::move(training));
  }
  if (rows.size() >= 2) {
    Histogram histogram{{"KL per document", "mean KL per token", "documents"}, AxisScale::Logarithmic, 30, {}};
    for (size_t i = 1; i < rows.size(); ++i) {
      if (!rows[i].own_tokenizer) histogram.groups.emplace_back(rows[i].name, per_document(rows[i]));
    }
    report.sections.push_back({"Per document", {histogram}});
  }
  if (rows.size() >= 3 && !rows[1].own_tokenizer && !rows[2].own_tokenizer) {
    ScatterPlot plot{{"KL per document", rows[1].name, rows[2].name}, AxisScale::Logarithmic, true, {}};
    plot.series.push_back({"documents", per_document(rows[1]), per_document(rows[2])});
    report.sections.back().items.emplace_back(std::move(plot));
  }
  return report;
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
  arguments.insert(arguments.end(), {"--documents", std::to_string(config.documents), "--max-tokens",
                                     std::to_string(config.max_tokens), "--prompts", std::to_string(config.prompts)});
  arguments.insert(arguments.end(), runs.begin(), runs.end());
  arguments.insert(arguments.end(), {"--report", config.out + "/report.html"});
  return arguments;
}

int compare_by_config(const std::vector<std::string>& positional) {
  const auto config = ComparisonConfig::load(positional.front(), {positional.begin() + 1, positional.end()});
  if (const int code = make_missing_cells(config); code != 0) return code;
  return command_compare(arguments_of(config));
}

}  // namespace

int command_compare(const Arguments& arguments) {
  if (asks_for_sensitivity(arguments)) return compare_sensitivity(arguments);
  const auto parsed = parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) {
        options.add_options()("data", "JSONL or .txt file for perplexity, KL and greedy prompts; may be given several times",
                              cxxopts::value<std::vector<std::string>>())(
            "questions", "multiple-choice JSONL", cxxopts::value<std::string>())(
            "report", "HTML file to write; the figures go beside it as .json", cxxopts::value<std::string>())(
            "metrics", "NAME=metrics.jsonl of a training run, for the report", cxxopts::value<std::vector<std::string>>())(
            "json", "print JSON instead of tables")(
            "prompts", "prompts for greedy agreement", cxxopts::value<int64_t>()->default_value("32"))(
            "max-new", "tokens per greedy continuation", cxxopts::value<int64_t>()->default_value("32"));
        describe_measure_options(options);
        describe_model_options(options);
      },
      1, -1);
  if (parsed.helped) return 0;
  if (parsed.positional[0].find('=') == std::string::npos) return compare_by_config(parsed.positional);
  if (parsed.options.count("data") == 0) fail_usage("--data is missing\n  usage: ", kHelp.usage);
  const auto text_option = [&](const char* name) {
    return parsed.options.count(name) > 0 ? parsed.options[name].as<std::string>() : std::string();
  };
  const Inputs inputs{parsed.options["data"].as<std::vector<std::string>>(), text_option("questions"),
                      parsed.options["prompts"].as<int64_t>(), parsed.options["max-new"].as<int64_t>(),
                      read_measure_options(parsed.options)};
  std::vector<Named> metrics;
  if (parsed.options.count("metrics") > 0) {
    for (const auto& run : parsed.options["metrics"].as<std::vector<std::string>>()) metrics.push_back(parse_named(run));
  }

  const ModelOptions model_options = read_model_options(parsed.options);
  const Named first = parse_named(parsed.positional[0]);
  OpenedModel reference = open_model(first.path, model_options);
  std::vector<DataWarning> warnings;
  const auto check = [&](const std::string& file) {
    for (DataWarning& warning : check_data(file, inputs.measure)) warnings.push_back(std::move(warning));
  };
  for (const std::string& file : inputs.data) check(file);
  if (!inputs.questions.empty()) check(inputs.questions);

  const Files files = load_files(reference, inputs);
  std::vector<MeasuredModel> models{measure_model(first, reference, reference, files, inputs)};
  const auto few = document_warnings(models[0].text);
  print_warnings(few);
  warnings.insert(warnings.end(), few.begin(), few.end());
  for (size_t i = 1; i < parsed.positional.size(); ++i) {
    const Named named = parse_named(parsed.positional[i]);
    OpenedModel opened = open_model(named.path, model_options);
    models.push_back(measure_model(named, opened, reference, files, inputs));
    if (models.back().own_tokenizer) warnings.push_back(tokenizer_warning(models.back(), first.name));
  }

  const std::vector<Section> sections = sections_of(models);
  auto json = comparison_json(models);
  json["warnings"] = warnings_json(warnings);
  if (parsed.options.count("json") > 0) {
    std::printf("%s\n", json.dump(2).c_str());
  } else {
    for (const Section& section : sections) {
      std::printf("%s%s", &section == sections.data() ? "" : "\n", format_table(section.table).c_str());
    }
  }
  if (parsed.options.count("report") > 0) {
    const auto path = parsed.options["report"].as<std::string>();
    write_file(path, render_html(make_report(models, sections, warnings, metrics, inputs)));
    write_file(std::filesystem::path(path).replace_extension(".json"), json.dump(1) + "\n");
    std::fprintf(parsed.options.count("json") > 0 ? stderr : stdout, "\nreport: %s\n", path.c_str());
  }
  return 0;
}

}  // namespace qat
