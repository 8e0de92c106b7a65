// What was measured of one model, as JSON, as lines for the terminal, and per item as JSON lines.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

#include "eval/data_warnings.h"
#include "eval/exact_match.h"
#include "eval/multiple_choice.h"
#include "eval/text_summary.h"

namespace qat {

// Intervals are 95 %, over documents (bootstrap) or items (Wilson). JSON has null for an infinite divergence.
nlohmann::ordered_json text_json(const TextMeasures& measures);
nlohmann::ordered_json choice_json(std::span<const ChoiceResult> results);
nlohmann::ordered_json problem_json(std::span<const ProblemResult> results);
nlohmann::ordered_json warnings_json(std::span<const DataWarning> warnings);

std::string text_lines(const TextMeasures& measures);
std::string choice_lines(std::span<const ChoiceResult> results);
std::string problem_lines(std::span<const ProblemResult> results);

// One line of JSON per document, question or problem of `file`. A model's name, if given, comes first.
std::string document_items(const TextMeasures& measures, const std::string& file, const std::string& model = "");
std::string choice_items(std::span<const ChoiceResult> results, const std::string& file, const std::string& model = "");
std::string problem_items(std::span<const ProblemResult> results, const std::string& file);

}  // namespace qat
