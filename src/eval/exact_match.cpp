#include "eval/exact_match.h"

#include <algorithm>

#include "core/error.h"
#include "eval/generate.h"

namespace qat {
namespace {

constexpr const char* kMark = "#### ";
constexpr const char* kInvalid = "[invalid]";
constexpr const char* kStopTexts[] = {"Question:", "</s>", "<|im_end|>"};

size_t run_of(const std::string& text, size_t begin, const char* characters) {
  const size_t end = text.find_first_not_of(characters, begin);
  return (end == std::string::npos ? text.size() : end) - begin;
}

std::string normalized(std::string text) {
  std::erase(text, ',');
  std::erase(text, '$');
  if (const size_t mark = text.rfind(kMark); mark != std::string::npos) text.erase(0, mark + std::string(kMark).size());
  // Python's "\.$" also matches before a newline that ends the text.
  const size_t end = text.ends_with('\n') ? text.size() - 1 : text.size();
  if (end > 0 && text[end - 1] == '.') text.erase(end - 1, 1);
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

// The text without its first stop text and what follows.
std::string before_stop(const std::string& text) {
  size_t end = text.size();
  for (const char* stop : kStopTexts) end = std::min(end, text.find(stop));
  return text.substr(0, end);
}

}  // namespace

std::string problem_prompt(const WorkedProblem& problem, std::span<const WorkedProblem> examples) {
  std::string prompt;
  for (const WorkedProblem& example : examples) {
    prompt += "Question: " + example.question + "\nAnswer: " + example.answer + "\n\n";
  }
  return prompt + "Question: " + problem.question + "\nAnswer:";
}

// Python: re.findall(r"#### (\-?[0-9\.\,]+)", text)[0].
std::string strict_number(const std::string& text) {
  for (size_t mark = text.find(kMark); mark != std::string::npos; mark = text.find(kMark, mark + 1)) {
    const size_t begin = mark + std::string(kMark).size();
    const size_t sign = begin < text.size() && text[begin] == '-' ? 1 : 0;
    const size_t digits = run_of(text, begin + sign, "0123456789.,");
    if (digits > 0) return text.substr(begin, sign + digits);
  }
  return kInvalid;
}

// Python: re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", text)[-1]; a run of one counts only if it is a digit.
std::string flexible_number(const std::string& text) {
  std::string last = kInvalid;
  for (size_t begin = 0; begin < text.size();) {
    const size_t sign = text[begin] == '-' ? 1 : 0;
    const size_t run = run_of(text, begin + sign, "$0123456789.,");
    const bool is_number = run >= 2 || run_of(text, begin + sign, "0123456789") == 1;
    if (is_number) last = text.substr(begin, sign + run);
    begin += is_number ? sign + run : 1;
  }
  return last;
}

bool matches_exactly(const std::string& found, const std::string& wanted) {
  return normalized(found) == normalized(wanted);
}

std::vector<ProblemResult> measure_problems(LanguageModel& model, const Tokenizer& tokenizer,
                                            std::span<const WorkedProblem> problems,
                                            std::span<const std::vector<int32_t>> prompts,
                                            const ProblemOptions& options) {
  QAT_CHECK(problems.size() == prompts.size());
  std::vector<ProblemResult> results;
  for (size_t i = 0; i < problems.size(); ++i) {
    std::vector<int32_t> tokens;
    std::string text;
    GenerateOptions generation;
    generation.max_new = options.max_new;
    generation.stop_tokens = options.stop_tokens;
    generation.on_step = [&](const GeneratedStep& step) {
      tokens.push_back(step.token);
      text = tokenizer.decode(tokens, /*skip_special=*/true);
    };
    generation.stop_when = [&] { return before_stop(text).size() < text.size(); };
    generate(model, prompts[i], generation);

    ProblemResult result;
    result.line = problems[i].line;
    result.text = before_stop(text);
    result.strict = strict_number(result.text);
    result.flexible = flexible_number(result.text);
    result.correct_strict = matches_exactly(result.strict, problems[i].answer);
    result.correct_flexible = matches_exactly(result.flexible, problems[i].answer);
    results.push_back(std::move(result));
    if (options.on_progress) options.on_progress(static_cast<int64_t>(i) + 1, static_cast<int64_t>(problems.size()));
  }
  return results;
}

}  // namespace qat
