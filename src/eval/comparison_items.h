// Single items of a comparison to read: questions that a model answers otherwise than the reference, and the tokens at
// which its distributions stray most.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "data/question.h"
#include "eval/comparison.h"

namespace qat {

struct FlippedItem {
  int64_t line = 0;  // of the questions' file
  std::string question;
  std::string right;
  std::string reference_choice;
  std::string choice;
  double margin = 0;  // nats by which the model prefers its choice to the reference's
};

// The ten of largest margin, of equal ones the first. `questions`: those that both models answered, in that order.
std::vector<FlippedItem> flipped_items(const MeasuredModel& reference, const MeasuredModel& model,
                                       std::span<const MultipleChoiceQuestion> questions);

Table flipped_table(std::span<const FlippedItem> items, const std::string& reference, const std::string& model);
// `reference`: the name of the model that KL is measured from.
Table worst_tokens_table(const MeasuredModel& model, const std::string& reference);

nlohmann::ordered_json flipped_json(std::span<const FlippedItem> items);
nlohmann::ordered_json worst_tokens_json(const MeasuredModel& model);

}  // namespace qat
