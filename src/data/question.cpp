#include "data/question.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/data_lines.h"
#include "data/record_fields.h"

namespace qat {
namespace {

std::string solved(const MultipleChoiceQuestion& example) {
  const std::string& choice = example.choices[static_cast<size_t>(example.answer)];
  return example.ending.empty() ? example.question + " " + choice + "\n\n" : choice + " " + example.ending + "\n\n";
}

bool asks_the_same(const MultipleChoiceQuestion& a, const MultipleChoiceQuestion& b) {
  return a.question == b.question && a.choices == b.choices && a.ending == b.ending;
}

std::string solved_examples(const MultipleChoiceQuestion& question, const std::vector<MultipleChoiceQuestion>& examples,
                            int64_t count) {
  std::string text;
  int64_t found = 0;
  for (const MultipleChoiceQuestion& example : examples) {
    if (found == count) break;
    if (example.subject != question.subject || asks_the_same(example, question)) continue;
    text += solved(example);
    ++found;
  }
  if (found == count) return text;
  fail("the question in line ", question.line, " needs ", count, " solved examples",
       question.subject.empty() ? "" : " about " + question.subject, ", but the examples' file has ", found,
       ": lower --few-shot or give a larger --few-shot-data");
}

}  // namespace

bool is_multiple_choice_file(const std::filesystem::path& path) {
  if (path.extension() == ".txt") return false;
  const auto parsed = nlohmann::ordered_json::parse(first_line(path), nullptr, false);
  return parsed.is_object() && is_multiple_choice_line(parsed);
}

std::vector<MultipleChoiceQuestion> load_multiple_choice(const std::filesystem::path& path) {
  std::vector<MultipleChoiceQuestion> questions;
  for_each_line(path, [&](const std::string& text, int64_t line) {
    questions.push_back(read_multiple_choice(parse_line(text)));
    questions.back().line = line;
  });
  if (questions.empty()) fail(path.string(), ": has no questions; one JSON object per line is wanted");
  return questions;
}

void add_solved_examples(std::vector<MultipleChoiceQuestion>& questions,
                         const std::vector<MultipleChoiceQuestion>& examples, int64_t count) {
  for (MultipleChoiceQuestion& question : questions) question.preface += solved_examples(question, examples, count);
}

std::vector<WorkedProblem> load_worked_problems(const std::filesystem::path& path) {
  std::vector<WorkedProblem> problems;
  for_each_line(path, [&](const std::string& text, int64_t line) {
    const auto parsed = parse_line(text);
    WorkedProblem problem{filled_text(parsed, "question"), filled_text(parsed, "answer"), line};
    const size_t mark = problem.answer.rfind("#### ");
    if (mark == std::string::npos || problem.answer.find_first_of("0123456789", mark) == std::string::npos) {
      fail("the answer does not end in \"#### number\", so there is nothing to match");
    }
    problems.push_back(std::move(problem));
  });
  if (problems.empty()) fail(path.string(), ": has no problems; one JSON object per line is wanted");
  return problems;
}

}  // namespace qat
