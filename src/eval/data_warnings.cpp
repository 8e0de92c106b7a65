#include "eval/data_warnings.h"

#include <algorithm>
#include <set>

#include "core/error.h"
#include "data/plain_text.h"
#include "eval/statistics.h"

namespace qat {

std::vector<DataWarning> duplicate_warnings(const std::filesystem::path& data) {
  std::set<std::string> texts;
  int64_t repeated = 0;
  int64_t first = 0;
  for_each_text(data, [&](const std::string& text, int64_t line) {
    if (texts.insert(text).second) return;
    if (repeated++ == 0) first = line;
  });
  if (repeated == 0) return {};
  return {
      {"duplicate-items", join(repeated, " documents of ", data.string(), " repeat an earlier one (the first in line ",
                               first, "), so intervals and p-values claim more evidence than there is")}};
}

std::vector<DataWarning> answer_warnings(std::span<const MultipleChoiceQuestion> questions) {
  const auto same = [&](const MultipleChoiceQuestion& question) { return question.answer == questions[0].answer; };
  if (questions.size() < 2 || !std::ranges::all_of(questions, same)) return {};
  return {{"one-class", join("every right answer of the questions is choice ", questions[0].answer + 1,
                             ": a model that always picks it would be right always; shuffle the choices")}};
}

std::vector<DataWarning> document_warnings(const TextMeasures& measures) {
  const auto counted =
      std::ranges::count_if(measures.documents, [](const auto& document) { return document.tokens > 0; });
  if (counted >= kFewestDocuments) return {};
  return {{"few-documents",
           join("intervals over ", counted, " documents are too narrow; ", kFewestDocuments, " or more are wanted")}};
}

}  // namespace qat
