// What evaluation asks: multiple-choice questions and worked problems, from JSONL files in the shapes of the public
// benchmarks. The texts are those that lm-evaluation-harness builds (0.4.13, the tasks' YAML files).
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace qat {

struct MultipleChoiceQuestion {
  // Read before everything else: a description and solved examples. Empty but for MMLU's description.
  std::string preface;
  std::string question;
  std::vector<std::string> choices;  // two or more
  int64_t answer = 0;                // index into choices
  int64_t line = 0;
  // Of WinoGrande: `question` is empty, the choices are beginnings, and this text, the same after each, is scored.
  std::string ending;
  std::string subject;  // of MMLU; its solved examples are of the same subject
};

// A line of one of these shapes, recognised by its fields:
//   HellaSwag   activity_label, ctx_a, ctx_b, endings, label
//   ARC         question, choices {text, label}, answerKey
//   MMLU        question, subject, choices, answer: the options become part of the question, the letters are scored
//   WinoGrande  sentence with one _, option1, option2, answer ("1" or "2")
//   PIQA        goal, sol1, sol2, label
//   plain       question | query | ctx, choices | endings, answer | label | gold: scored as they are
// An answer is an index, a letter or numeric text unless said otherwise. Throws Error for a missing or empty field and
// an answer that is none of the choices.
MultipleChoiceQuestion read_multiple_choice(const nlohmann::ordered_json& line);
bool is_multiple_choice_line(const nlohmann::ordered_json& line);

// True if the first line of the file is a multiple-choice question.
bool is_multiple_choice_file(const std::filesystem::path& path);
// Throws Error with file and line for a bad line, and for a file without any question.
std::vector<MultipleChoiceQuestion> load_multiple_choice(const std::filesystem::path& path);

// Puts the first `count` questions of `examples` (for questions with a subject, of that subject) with their answers in
// front of each question. An example that asks the same is passed over. Throws Error where there are fewer.
void add_solved_examples(std::vector<MultipleChoiceQuestion>& questions,
                         const std::vector<MultipleChoiceQuestion>& examples, int64_t count);

// {"question", "answer"} as in GSM8K: the answer is worked out and ends in "#### number".
struct WorkedProblem {
  std::string question;
  std::string answer;
  int64_t line = 0;
};
// Throws Error with file and line for a bad line or an answer without "#### number", and for a file without any.
std::vector<WorkedProblem> load_worked_problems(const std::filesystem::path& path);

}  // namespace qat
