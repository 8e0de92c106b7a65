// What is wrong with the data of an evaluation without making it impossible: each finding has a name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/question.h"
#include "eval/text_metrics.h"

namespace qat {

struct DataWarning {
  std::string name;  // "contamination"
  std::string text;  // a sentence
};

// "duplicate-items" (equal texts count as independent evidence, so intervals are too narrow) of any data file.
std::vector<DataWarning> duplicate_warnings(const std::filesystem::path& data);
// "one-class": every right answer stands in the same place, so a model that always picks it is right always.
std::vector<DataWarning> answer_warnings(std::span<const MultipleChoiceQuestion> questions);
// "few-documents": below kFewestDocuments.
std::vector<DataWarning> document_warnings(const TextMeasures& measures);

// Evaluation documents that share kContaminationWords words in a row with a document of the training data (shorter
// ones: that are equal to one), compared in lower case and without punctuation.
struct Contamination {
  int64_t documents = 0;  // of the evaluation
  std::vector<int64_t> lines;
};
constexpr size_t kContaminationWords = 13;
Contamination find_contamination(const std::filesystem::path& data, const std::filesystem::path& training_data);
// "contamination", if there is any.
std::vector<DataWarning> contamination_warnings(const std::filesystem::path& data,
                                                std::span<const std::string> training_data);

}  // namespace qat
