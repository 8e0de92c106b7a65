#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/measure.h"
#include "cli/open_model.h"
#include "core/error.h"
#include "core/output_file.h"
#include "eval/measure_report.h"

namespace qat {

namespace {

using Json = nlohmann::ordered_json;

const CommandHelp kHelp{
    "gemma-qat eval MODEL --data FILE [--data FILE …] [--reference MODEL] [--items FILE] [--json]",
    "Measures a model on a file. Text and chats: perplexity over the trained tokens, and with --reference the KL divergence "
    "from the reference's distributions; of several files each alone and all together. Multiple choice (plain JSONL, or the "
    "shapes of HellaSwag, ARC, MMLU, WinoGrande and PIQA): accuracy as lm-evaluation-harness counts it. With --exact-match "
    "worked problems (question, answer with \"#### number\", as GSM8K) are answered by greedy generation.\n"
    "Intervals are 95 %, over documents (bootstrap) or items (Wilson).",
    "  gemma-qat eval e2b.gguf --data heldout.jsonl --reference gemma-4-E2B-it\n"
    "  gemma-qat eval runs/e2b/checkpoint --data arc_easy.jsonl --plain-prompts --items answers.jsonl --json"};

// What is printed of a file, and of all files.
struct Figures {
  Json json;
  std::string lines;  // for the terminal
  std::string items;  // JSON lines
};

Figures text_figures(OpenedModel& opened, OpenedModel* reference, const std::vector<std::string>& files,
                     const MeasureOptions& options, std::vector<DataWarning>& warnings) {
  std::vector<TextMeasures> measures;
  Figures figures;
  Json each = Json::array();
  for (const std::string& file : files) {
    measures.push_back(measure_documents(opened, reference, load_documents(opened, file, options), options));
    figures.items += document_items(measures.back(), file);
    if (files.size() == 1) continue;
    each.push_back(Json{{"file", file}});
    each.back().update(text_json(measures.back()));
    figures.lines += file + "\n" + text_lines(measures.back()) + "\n";
  }
  const TextMeasures all = joined(measures);
  const auto few = document_warnings(all);
  print_warnings(few);
  warnings.insert(warnings.end(), few.begin(), few.end());
  figures.json = text_json(all);
  if (files.size() > 1) {
    figures.json["files"] = each;
    figures.lines += "all files\n";
  }
  figures.lines += text_lines(all);
  return figures;
}

// Of results that are counted one by one: questions and problems.
template <class Result>
Figures counted_figures(const std::vector<std::string>& files,
                        const std::function<std::vector<Result>(const std::string&)>& measure,
                        Json (*to_json)(std::span<const Result>), std::string (*to_lines)(std::span<const Result>),
                        std::string (*to_items)(std::span<const Result>, const std::string&)) {
  Figures figures;
  std::vector<Result> all;
  Json each = Json::array();
  for (const std::string& file : files) {
    const std::vector<Result> results = measure(file);
    all.insert(all.end(), results.begin(), results.end());
    figures.items += to_items(results, file);
    if (files.size() == 1) continue;
    each.push_back(Json{{"file", file}});
    each.back().update(to_json(results));
    figures.lines += file + "\n" + to_lines(results) + "\n";
  }
  figures.json = to_json(all);
  if (files.size() > 1) {
    figures.json["files"] = each;
    figures.lines += "all files\n";
  }
  figures.lines += to_lines(all);
  return figures;
}

OpenedModel open_reference(const std::string& path, ModelOptions options, const OpenedModel& opened) {
  options.adapter.clear();
  OpenedModel reference = open_model(path, options);
  if (!same_tokens(opened, reference)) {
    fail(path, ": its tokenizer gives the ids other meanings than the model's, so their distributions can not be compared; ",
         "leave out --reference (perplexity per byte and accuracy can be compared), or choose a reference of one family");
  }
  return reference;
}

}  // namespace

int command_eval(const Arguments& arguments) {
  const auto parsed = parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) {
        options.add_options()("data", "JSONL or .txt file; may be given several times",
                              cxxopts::value<std::vector<std::string>>())(
            "reference", "model that KL divergence is measured from", cxxopts::value<std::string>())(
            "exact-match", "answer worked problems and match the number")(
            "max-new", "most tokens of such an answer", cxxopts::value<int64_t>()->default_value("256"))(
            "items", "file for what was measured of each document or question, as JSON lines",
            cxxopts::value<std::string>())("json", "print JSON");
        describe_measure_options(options);
        describe_model_options(options);
        describe_adapter_option(options);
      },
      1, 1);
  if (parsed.helped) return 0;
  if (parsed.options.count("data") == 0) fail_usage("--data is missing\n  usage: ", kHelp.usage);
  const auto files = parsed.options["data"].as<std::vector<std::string>>();
  const ModelOptions model_options = read_model_options(parsed.options);
  MeasureOptions measure = read_measure_options(parsed.options);
  measure.max_new = parsed.options["max-new"].as<int64_t>();
  const bool exact_match = parsed.options.count("exact-match") > 0;
  const bool questions = !exact_match && is_multiple_choice_file(files.front());
  for (const std::string& file : files) {
    if (!exact_match && is_multiple_choice_file(file) != questions) {
      fail_usage("--data mixes multiple choice with text: ", files.front(), " and ", file);
    }
  }

  const std::string& path = parsed.positional[0];
  OpenedModel opened = open_model(path, model_options);
  opened.require_tokenizer(path);
  std::vector<DataWarning> warnings;
  for (const std::string& file : files) {
    for (DataWarning& warning : check_data(file, measure)) warnings.push_back(std::move(warning));
  }
  Figures figures;
  if (exact_match) {
    figures = counted_figures<ProblemResult>(
        files, [&](const std::string& file) { return measure_problems(opened, file, measure); }, problem_json,
        problem_lines, problem_items);
  } else if (questions) {
    figures = counted_figures<ChoiceResult>(
        files, [&](const std::string& file) { return measure_questions(opened, file, measure); }, choice_json,
        choice_lines,
        [](std::span<const ChoiceResult> results, const std::string& file) { return choice_items(results, file); });
  } else {
    std::optional<OpenedModel> reference;
    if (parsed.options.count("reference") > 0) {
      reference = open_reference(parsed.options["reference"].as<std::string>(), model_options, opened);
    }
    figures = text_figures(opened, reference ? &*reference : nullptr, files, measure, warnings);
  }
  if (!warnings.empty()) figures.json["warnings"] = warnings_json(warnings);
  if (parsed.options.count("items") > 0) write_file(parsed.options["items"].as<std::string>(), figures.items);
  std::printf("%s", parsed.options.count("json") > 0 ? (figures.json.dump(2) + "\n").c_str() : figures.lines.c_str());
  return 0;
}

}  // namespace qat
