// Measuring opened models on data files, with progress: what eval and compare share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/open_model.h"
#include "data/dataset.h"
#include "eval/multiple_choice.h"
#include "eval/text_metrics.h"

namespace qat {

struct MeasureOptions {
  int64_t documents = 0;   // only the first so many; 0 = all
  int64_t max_tokens = 0;  // longest window of a document
};

// Examples of a text or chat file, tokenized for the model.
std::vector<Example> load_documents(const OpenedModel& opened, const std::string& data, const MeasureOptions& options);
TextMeasures measure_documents(OpenedModel& opened, OpenedModel* reference, const std::vector<Example>& documents,
                               const MeasureOptions& options);
// Multiple-choice questions: through the chat template if the model has one.
std::vector<ChoiceResult> measure_questions(OpenedModel& opened, const std::string& data, const MeasureOptions& options);

}  // namespace qat
