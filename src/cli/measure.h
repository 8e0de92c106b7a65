// Measuring opened models on data files, with progress: what eval and compare share.
#pragma once

#include <cstdint>
#include <cxxopts.hpp>
#include <span>
#include <string>
#include <vector>

#include "cli/open_model.h"
#include "data/dataset.h"
#include "eval/data_warnings.h"
#include "eval/exact_match.h"
#include "eval/multiple_choice.h"
#include "eval/text_metrics.h"

namespace qat {

struct MeasureOptions {
  int64_t documents = 0;                   // only the first so many of each file; 0 = all
  int64_t max_tokens = 0;                  // longest window of a document
  int64_t stride = 0;                      // between such windows; 0: they do not overlap
  bool plain_prompts = false;              // questions and problems without the model's chat template
  int64_t few_shot = 0;                    // solved examples in front of each question or problem
  std::string few_shot_data;               // where they come from
  int64_t max_new = 256;                   // tokens of an answer to a worked problem
  std::vector<std::string> training_data;  // searched for what is evaluated
};

// Declares the options above (but max_new) in a verb, and reads them back.
void describe_measure_options(cxxopts::Options& options);
MeasureOptions read_measure_options(const cxxopts::ParseResult& parsed);

// Examples of a text or chat file, tokenized for the model.
std::vector<Example> load_documents(const OpenedModel& opened, const std::string& data, const MeasureOptions& options);
// The questions of a file that measure_questions() puts.
std::vector<MultipleChoiceQuestion> load_questions(const std::string& data, const MeasureOptions& options);
TextMeasures measure_documents(OpenedModel& opened, OpenedModel* reference, const std::vector<Example>& documents,
                               const MeasureOptions& options);
// Multiple-choice questions and worked problems: through the chat template if the model has one.
std::vector<ChoiceResult> measure_questions(OpenedModel& opened, const std::string& data,
                                            const MeasureOptions& options);
std::vector<ProblemResult> measure_problems(OpenedModel& opened, const std::string& data,
                                            const MeasureOptions& options);

// Keeps what a reference makes of documents (1 GiB at most), for models that are measured against it one after another.
void remember_passes(OpenedModel& reference);

// Whether every id means the same to both. Models without a tokenizer are taken to agree.
bool same_tokens(const OpenedModel& a, const OpenedModel& b);

// What is wrong with a data file; each finding is printed to stderr too.
std::vector<DataWarning> check_data(const std::string& data, const MeasureOptions& options);
void print_warnings(std::span<const DataWarning> warnings);

}  // namespace qat
