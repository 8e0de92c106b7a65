#include <cinttypes>
#include <cstdio>
#include <tuple>

#include "cli/command.h"
#include "cli/measure.h"
#include "cli/open_model.h"
#include "core/error.h"
#include "core/output_file.h"
#include "core/terminal.h"
#include "eval/generate.h"
#include "eval/html_report.h"
#include "eval/table.h"

namespace qat {

namespace {

const CommandHelp kHelp{
    "gemma-qat compare NAME=MODEL NAME=MODEL ... --data FILE [--questions FILE] [--report FILE.html]",
    "Measures several models on the same files and prints one table: size, bits per weight, perplexity, KL divergence from the "
    "first model, multiple-choice accuracy, and how much of the first model's greedy continuations they reproduce. Intervals "
    "are 95 %, paired over documents. --report writes the table and plots as one HTML file; --metrics NAME=FILE adds the "
    "curves of training runs (metrics.jsonl).",
    "  gemma-qat compare BF16=runs/bf16/checkpoint RTN=runs/rtn QAT=runs/qat/checkpoint --data report.jsonl\n"
    "  gemma-qat compare BF16=runs/bf16/checkpoint QAT=qat.gguf --data report.jsonl --report report.html"};

struct Named {
  std::string name;
  std::string path;
};

Named parse_named(const std::string& argument) {
  const size_t equals = argument.find('=');
  if (equals == std::string::npos || equals == 0) fail_usage("\"", argument, "\": wanted NAME=PATH");
  return {argument.substr(0, equals), argument.substr(equals + 1)};
}

// Everything that is measured of one model.
struct Row {
  Named model;
  uint64_t bytes = 0;
  double bits = 0;
  TextMeasures text;
  TextSummary summary;
  Estimate divergence;
  std::vector<ChoiceResult> choices;
  double greedy = 1;
};

struct Inputs {
  std::string data;
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

Row measure_row(const Named& named, OpenedModel& opened, OpenedModel& reference, const std::vector<Example>& documents,
                const Inputs& inputs) {
  std::fprintf(stderr, "measuring %s (%s)\n", named.name.c_str(), named.path.c_str());
  Row row;
  row.model = named;
  row.bytes = opened.weight_bytes;
  row.bits = opened.bits_per_weight;
  row.text = measure_documents(opened, &reference, documents, inputs.measure);
  row.summary = summarize(row.text);
  row.divergence = bootstrap_ratio(column(row.text, &DocumentMeasures::divergence), token_column(row.text), {});
  if (!inputs.questions.empty()) row.choices = measure_questions(opened, inputs.questions, inputs.measure);
  if (&opened != &reference && inputs.prompts > 0) {
    const auto prompts = prompts_of(documents, inputs.prompts);
    row.greedy = agreement_share(
        greedy_agreement(*opened.model, *reference.model, prompts, inputs.max_new, reference.stop_tokens));
  }
  return row;
}

Table results_table(const std::vector<Row>& rows, bool with_questions) {
  Table table;
  table.header = {"model", "size", "bits/weight", "perplexity", "KL to " + rows[0].model.name, "KL 95 % interval", "same top"};
  if (with_questions) table.header.push_back("accuracy");
  table.header.push_back("greedy agreement");
  for (const Row& row : rows) {
    const auto& kl = row.divergence;
    std::vector<std::string> cells{row.model.name,
                                   format_bytes(static_cast<double>(row.bytes)),
                                   format_fixed(row.bits, 2),
                                   format_fixed(row.summary.perplexity, 3),
                                   format_significant(kl.value, 3),
                                   format_significant(kl.interval.low, 3) + " – " + format_significant(kl.interval.high, 3),
                                   format_percent(row.summary.divergence->same_top_share, 1)};
    if (with_questions) cells.push_back(format_percent(summarize(row.choices).accuracy.share, 1));
    cells.push_back(format_percent(row.greedy, 1));
    table.rows.push_back(std::move(cells));
  }
  return table;
}

// Every later model against the second (the baseline of the comparison), paired over documents and questions.
Table pairs_table(const std::vector<Row>& rows, bool with_questions) {
  Table table;
  table.header = {"pair", "KL difference", "95 % interval", "KL ratio"};
  if (with_questions) table.header.insert(table.header.end(), {"answers flipped", "McNemar p"});
  const Row& baseline = rows[1];
  for (size_t i = 2; i < rows.size(); ++i) {
    const auto first = column(rows[i].text, &DocumentMeasures::divergence);
    const auto second = column(baseline.text, &DocumentMeasures::divergence);
    const Estimate difference = bootstrap_difference(first, second, token_column(baseline.text), {});
    std::vector<std::string> cells{rows[i].model.name + " − " + baseline.model.name, format_significant(difference.value, 3),
                                   format_significant(difference.interval.low, 3) + " – " +
                                       format_significant(difference.interval.high, 3),
                                   format_fixed(rows[i].divergence.value / baseline.divergence.value, 3)};
    if (with_questions) {
      const McNemar test = exact_mcnemar(correct_items(rows[i].choices, &ChoiceResult::correct),
                                         correct_items(baseline.choices, &ChoiceResult::correct));
      cells.push_back(format_percent(test.flip_share(), 1));
      cells.push_back(format_significant(test.p_value, 2));
    }
    table.rows.push_back(std::move(cells));
  }
  return table;
}

std::vector<double> per_document(const Row& row) {
  std::vector<double> values;
  for (const DocumentMeasures& document : row.text.documents) {
    values.push_back(document.tokens > 0 ? document.divergence / static_cast<double>(document.tokens) : 0);
  }
  return values;
}

Report make_report(const std::vector<Row>& rows, const Table& results, const std::vector<Table>& pairs,
                   const std::vector<Named>& metrics, const std::string& data) {
  Report report;
  report.title = "gemma-qat: comparison";
  report.introduction = {"All models were measured on the same documents (" + data + "), " +
                         std::to_string(rows[0].summary.documents) + " documents with " +
                         std::to_string(rows[0].summary.tokens) + " counted tokens. KL is measured from " + rows[0].model.name +
                         ". Intervals are 95 %, by bootstrap over documents."};
  ReportSection table{"Results", {results}};
  for (const Table& pair : pairs) table.items.emplace_back(pair);
  report.sections.push_back(std::move(table));

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
    for (size_t i = 1; i < rows.size(); ++i) histogram.groups.emplace_back(rows[i].model.name, per_document(rows[i]));
    report.sections.push_back({"Per document", {histogram}});
  }
  if (rows.size() >= 3) {
    ScatterPlot plot{{"KL per document", rows[1].model.name, rows[2].model.name}, AxisScale::Logarithmic, true, {}};
    plot.series.push_back({"documents", per_document(rows[1]), per_document(rows[2])});
    report.sections.back().items.emplace_back(std::move(plot));
  }
  return report;
}

}  // namespace

int command_compare(const Arguments& arguments) {
  const auto parsed = parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) {
        options.add_options()("data", "JSONL or .txt file for perplexity, KL and greedy prompts", cxxopts::value<std::string>())(
            "questions", "multiple-choice JSONL", cxxopts::value<std::string>())(
            "report", "HTML file to write", cxxopts::value<std::string>())(
            "metrics", "NAME=metrics.jsonl of a training run, for the report", cxxopts::value<std::vector<std::string>>())(
            "documents", "measure only the first N documents and questions, 0 = all",
            cxxopts::value<int64_t>()->default_value("0"))(
            "max-tokens", "longest window of a document", cxxopts::value<int64_t>()->default_value("2048"))(
            "prompts", "prompts for greedy agreement", cxxopts::value<int64_t>()->default_value("32"))(
            "max-new", "tokens per greedy continuation", cxxopts::value<int64_t>()->default_value("32"));
        describe_model_options(options);
      },
      1, -1);
  if (parsed.helped) return 0;
  if (parsed.options.count("data") == 0) fail_usage("--data is missing\n  usage: ", kHelp.usage);
  const auto text_option = [&](const char* name) {
    return parsed.options.count(name) > 0 ? parsed.options[name].as<std::string>() : std::string();
  };
  const Inputs inputs{text_option("data"), text_option("questions"), parsed.options["prompts"].as<int64_t>(),
                      parsed.options["max-new"].as<int64_t>(),
                      {parsed.options["documents"].as<int64_t>(), parsed.options["max-tokens"].as<int64_t>()}};
  std::vector<Named> metrics;
  if (parsed.options.count("metrics") > 0) {
    for (const auto& run : parsed.options["metrics"].as<std::vector<std::string>>()) metrics.push_back(parse_named(run));
  }

  const ModelOptions model_options = read_model_options(parsed.options);
  const Named first = parse_named(parsed.positional[0]);
  OpenedModel reference = open_model(first.path, model_options);
  const auto documents = load_documents(reference, inputs.data, inputs.measure);
  std::vector<Row> rows{measure_row(first, reference, reference, documents, inputs)};
  for (size_t i = 1; i < parsed.positional.size(); ++i) {
    const Named named = parse_named(parsed.positional[i]);
    OpenedModel opened = open_model(named.path, model_options);
    rows.push_back(measure_row(named, opened, reference, documents, inputs));
  }

  const bool with_questions = !inputs.questions.empty();
  const Table results = results_table(rows, with_questions);
  std::printf("%s", format_table(results).c_str());
  std::vector<Table> pairs;
  if (rows.size() >= 3) {
    pairs.push_back(pairs_table(rows, with_questions));
    std::printf("\n%s", format_table(pairs[0]).c_str());
  }
  if (parsed.options.count("report") > 0) {
    const auto path = parsed.options["report"].as<std::string>();
    write_file(path, render_html(make_report(rows, results, pairs, metrics, inputs.data)));
    std::printf("\nreport: %s\n", path.c_str());
  }
  return 0;
}

}  // namespace qat
