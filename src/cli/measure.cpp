#include "cli/measure.h"

#include <algorithm>
#include <cstdio>

#include "core/error.h"
#include "core/terminal.h"
#include "eval/remembered_rows.h"

namespace qat {

namespace {

// Progress over counts that come as totals.
std::function<void(int64_t, int64_t)> advance(Progress& progress, int64_t& last) {
  return [&progress, &last](int64_t done, int64_t) {
    progress.advance(done - last);
    last = done;
  };
}

void keep_first(auto& items, int64_t count) {
  if (count > 0 && static_cast<int64_t>(items.size()) > count) items.erase(items.begin() + count, items.end());
}

std::optional<ChatTemplate> prompt_template(const OpenedModel& opened, const MeasureOptions& options) {
  return options.plain_prompts ? std::nullopt : opened.chat_template;
}

}  // namespace

void describe_measure_options(cxxopts::Options& options) {
  options.add_options()("documents", "measure only the first N documents or questions of each file, 0 = all",
                        cxxopts::value<int64_t>()->default_value("0"))(
      "max-tokens", "longest window of a document", cxxopts::value<int64_t>()->default_value("2048"))(
      "stride",
      "tokens between the windows of a document, which then overlap and count what none before did; 0: no overlap",
      cxxopts::value<int64_t>()->default_value("0"))(
      "few-shot", "solved examples in front of each question, the first N of --few-shot-data (MMLU: of its subject)",
      cxxopts::value<int64_t>()->default_value("0"))("few-shot-data", "file of the same shape with the solved examples",
                                                     cxxopts::value<std::string>())(
      "plain-prompts", "questions as plain text, without the model's chat template")(
      "training-data", "file that the model was trained on: warns where it holds what is measured",
      cxxopts::value<std::vector<std::string>>());
}

MeasureOptions read_measure_options(const cxxopts::ParseResult& parsed) {
  MeasureOptions options;
  options.documents = parsed["documents"].as<int64_t>();
  options.max_tokens = parsed["max-tokens"].as<int64_t>();
  options.stride = parsed["stride"].as<int64_t>();
  options.few_shot = parsed["few-shot"].as<int64_t>();
  options.plain_prompts = parsed.count("plain-prompts") > 0;
  if (parsed.count("few-shot-data") > 0) options.few_shot_data = parsed["few-shot-data"].as<std::string>();
  if (parsed.count("training-data") > 0) {
    options.training_data = parsed["training-data"].as<std::vector<std::string>>();
  }
  if (options.stride != 0 && (options.stride < 0 || options.stride >= options.max_tokens)) {
    fail_usage("--stride ", options.stride, ": wanted 1 to ", std::max<int64_t>(options.max_tokens - 1, 1),
               ", less than --max-tokens ", options.max_tokens, ", or 0 for windows that do not overlap");
  }
  if (options.few_shot < 0) fail_usage("--few-shot ", options.few_shot, ": wanted 0 or more");
  if (options.few_shot > 0 && options.few_shot_data.empty()) {
    fail_usage("--few-shot ", options.few_shot, ": --few-shot-data names no file with solved examples");
  }
  return options;
}

std::vector<Example> load_documents(const OpenedModel& opened, const std::string& data, const MeasureOptions& options) {
  auto documents = load_examples(data, opened.require_tokenizer(data), opened.dataset_options());
  keep_first(documents, options.documents);
  return documents;
}

TextMeasures measure_documents(OpenedModel& opened, OpenedModel* reference, const std::vector<Example>& documents,
                               const MeasureOptions& options) {
  Progress progress("measuring", static_cast<int64_t>(documents.size()), "documents");
  int64_t last = 0;
  TextOptions text;
  text.max_tokens = options.max_tokens;
  text.stride = options.stride;
  text.tokenizer = opened.tokenizer ? &*opened.tokenizer : nullptr;
  text.on_progress = advance(progress, last);
  return measure_text(*opened.model, reference == nullptr ? nullptr : reference->model.get(), documents, text);
}

std::vector<MultipleChoiceQuestion> load_questions(const std::string& data, const MeasureOptions& options) {
  auto questions = load_multiple_choice(data);
  keep_first(questions, options.documents);
  return questions;
}

std::vector<ChoiceResult> measure_questions(OpenedModel& opened, const std::string& data,
                                            const MeasureOptions& options) {
  auto questions = load_questions(data, options);
  if (options.few_shot > 0) {
    add_solved_examples(questions, load_multiple_choice(options.few_shot_data), options.few_shot);
  }
  RenderOptions render;
  render.add_generation_prompt = true;
  std::vector<ChoiceItem> items;
  for (const auto& question : questions) {
    items.push_back(
        make_choice_item(opened.require_tokenizer(data), question, prompt_template(opened, options), render));
  }
  Progress progress("measuring", static_cast<int64_t>(items.size()), "questions");
  int64_t last = 0;
  return measure_choices(*opened.model, items, advance(progress, last));
}

std::vector<ProblemResult> measure_problems(OpenedModel& opened, const std::string& data,
                                            const MeasureOptions& options) {
  auto problems = load_worked_problems(data);
  keep_first(problems, options.documents);
  std::vector<WorkedProblem> examples;
  if (options.few_shot > 0) examples = load_worked_problems(options.few_shot_data);
  if (static_cast<int64_t>(examples.size()) < options.few_shot) {
    fail(options.few_shot_data, ": has ", examples.size(), " problems, but --few-shot asks for ", options.few_shot);
  }
  keep_first(examples, options.few_shot);
  const Tokenizer& tokenizer = opened.require_tokenizer(data);
  std::vector<std::vector<int32_t>> prompts;
  for (const WorkedProblem& problem : problems) {
    prompts.push_back(
        tokenize_prompt(tokenizer, problem_prompt(problem, examples), prompt_template(opened, options), {}));
  }
  Progress progress("answering", static_cast<int64_t>(problems.size()), "problems");
  int64_t last = 0;
  return measure_problems(*opened.model, tokenizer, problems, prompts,
                          {options.max_new, opened.stop_tokens, advance(progress, last)});
}

void remember_passes(OpenedModel& reference) {
  constexpr int64_t kMostBytes = int64_t{1} << 30;
  reference.model = remember_hidden_rows(std::move(reference.model), kMostBytes);
}

bool same_tokens(const OpenedModel& a, const OpenedModel& b) {
  if (!a.tokenizer || !b.tokenizer) return true;
  const auto of_a = a.tokenizer->pieces();
  const auto of_b = b.tokenizer->pieces();
  // A file may name ids at the end that another leaves out; no text is cut into those.
  const size_t shared = std::min(of_a.size(), of_b.size());
  return std::ranges::equal(of_a.first(shared), of_b.first(shared));
}

std::vector<DataWarning> check_data(const std::string& data, const MeasureOptions& options) {
  std::vector<DataWarning> warnings = duplicate_warnings(data);
  const auto add = [&](std::vector<DataWarning> more) { warnings.insert(warnings.end(), more.begin(), more.end()); };
  if (is_multiple_choice_file(data)) add(answer_warnings(load_multiple_choice(data)));
  add(contamination_warnings(data, options.training_data));
  print_warnings(warnings);
  return warnings;
}

void print_warnings(std::span<const DataWarning> warnings) {
  for (const DataWarning& warning : warnings) {
    std::fprintf(stderr, "warning (%s): %s\n", warning.name.c_str(), warning.text.c_str());
  }
}

}  // namespace qat
