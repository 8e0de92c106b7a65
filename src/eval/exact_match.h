// Worked problems answered by greedy generation and matched as lm-evaluation-harness's task gsm8k does (version 3,
// qat_methods 6.2). The filter must be named beside every figure: they differ by many points on base models.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/question.h"
#include "data/tokenizer.h"
#include "gemma4/language_model.h"

namespace qat {

// "Question: …\nAnswer:" with `examples` in front, each with its worked answer.
std::string problem_prompt(const WorkedProblem& problem, std::span<const WorkedProblem> examples);

// The first number after "#### " (strict-match), and the last number of the text (flexible-extract); "[invalid]" if
// there is none.
std::string strict_number(const std::string& text);
std::string flexible_number(const std::string& text);
// Equal without commas, dollar signs, what stands before "#### ", a final full stop and the case of ASCII letters.
bool matches_exactly(const std::string& found, const std::string& wanted);

struct ProblemResult {
  int64_t line = 0;
  std::string text;  // what was generated, up to the first stop text
  std::string strict;
  std::string flexible;
  bool correct_strict = false;
  bool correct_flexible = false;
};

struct ProblemOptions {
  int64_t max_new = 256;
  std::vector<int32_t> stop_tokens = {};
  std::function<void(int64_t done, int64_t total)> on_progress = {};
};

// One result per problem; prompts[i] asks problems[i]. Generation ends at a stop token or at "Question:", "</s>" or
// "<|im_end|>". Throws Error as generate() does.
std::vector<ProblemResult> measure_problems(LanguageModel& model, const Tokenizer& tokenizer,
                                            std::span<const WorkedProblem> problems,
                                            std::span<const std::vector<int32_t>> prompts,
                                            const ProblemOptions& options);

}  // namespace qat
