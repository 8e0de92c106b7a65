// Several models measured on the same data: what the figures are and what they allow to be said.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/multiple_choice.h"
#include "eval/table.h"
#include "eval/text_summary.h"
#include "eval/verdict.h"

namespace qat {

// A data file, and how many of the measured documents are its.
struct MeasuredFile {
  std::string name;
  size_t documents = 0;
};

struct MeasuredModel {
  std::string name;
  std::string path;
  uint64_t bytes = 0;  // of the weights as stored
  double bits_per_weight = 0;
  // A model whose tokenizer is another one than the first model's: its text is measured in its own tokens, without a
  // reference, and only its answers are compared.
  bool own_tokenizer = false;
  bool is_judged = true;  // else it is measured to know where the others come from, and no claim is about it
  TextMeasures text;
  std::vector<MeasuredFile> files;         // in the order of the documents
  std::vector<ChoiceResult> choices;       // empty without questions
  std::optional<double> greedy_agreement;  // with the first model, if it was measured
};

// One line of the comparison: candidate - baseline in one measure.
struct Judgement {
  std::string candidate;
  std::string baseline;
  std::string measure;  // "KL", "loss", "accuracy"
  PairedDifference difference;
  Verdict verdict;
};

// Every model from the third on against the second (the baseline without training), or of two models the second against
// the first. All lines are one family for Holm's correction.
std::vector<Judgement> judge_models(std::span<const MeasuredModel> models);

// How much of what the second model lost against the first a later one has regained.
struct RecoveredGap {
  std::string model;
  std::string measure;  // "KL", "loss", "accuracy"
  Recovery recovery;
};
std::vector<RecoveredGap> recovered_gaps(std::span<const MeasuredModel> models);

// What was measured on one of a model's files.
struct FileMeasures {
  int64_t documents = 0;  // with counted tokens
  int64_t tokens = 0;
  double perplexity = 0;
  std::optional<Estimate> divergence;  // mean KL per token
  double same_top_share = 0;
};
FileMeasures file_measures(const MeasuredModel& model, size_t file);

// A row per model: size, perplexity, KL from the first, accuracy.
Table results_table(std::span<const MeasuredModel> models);
// A row per model: percentiles of KL, reverse KL, shift of the right token's probability, bits per byte.
Table tails_table(std::span<const MeasuredModel> models);
// A row per model: mean KL by the number of tokens that it had read.
Table contexts_table(std::span<const MeasuredModel> models);
// A row per file and model: perplexity, KL from the first, same top tokens.
Table files_table(std::span<const MeasuredModel> models);
// A row per pair: differences, ratios and answers that flip.
Table pairs_table(std::span<const MeasuredModel> models);
Table verdicts_table(std::span<const Judgement> judgements);
Table recovery_table(std::span<const RecoveredGap> gaps, std::span<const MeasuredModel> models);

nlohmann::ordered_json comparison_json(std::span<const MeasuredModel> models);

}  // namespace qat
