// The report of a comparison: tables for the terminal, and all of them with plots and items to read as HTML and JSON.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "data/question.h"
#include "eval/claim_limits.h"
#include "eval/comparison.h"
#include "eval/data_warnings.h"
#include "eval/html_report.h"

namespace qat {

// What a report says beside the measures.
struct ComparisonFacts {
  std::vector<MultipleChoiceQuestion> questions;  // that the models answered, in that order
  std::vector<DataWarning> warnings;
  struct TrainingRun {
    std::string name;
    std::string metrics;  // metrics.jsonl
  };
  std::vector<TrainingRun> runs;
  ComparisonOrigin origin;
  std::string sensitivity;  // file of `compare --sensitivity` about the first model; empty: not measured
};

// A table with what it needs to be read.
struct ComparisonSection {
  std::string heading;
  std::string explanation;
  Table table;
};

// What the terminal shows.
std::vector<ComparisonSection> comparison_sections(std::span<const MeasuredModel> models);

// The same inputs give the same bytes.
Report make_comparison_report(std::span<const MeasuredModel> models, const ComparisonFacts& facts);
nlohmann::ordered_json comparison_report_json(std::span<const MeasuredModel> models, const ComparisonFacts& facts);

}  // namespace qat
