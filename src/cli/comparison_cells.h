// The models of a comparison: made by the verbs that a user would call, one after another, and kept once they are
// finished.
#pragma once

#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/comparison_config.h"
#include "cli/open_model.h"

namespace qat {

// How models of a comparison are opened to be measured, once they are there.
ModelOptions model_options_of(const ComparisonConfig& config);

// A model to measure, as `compare` names it.
struct ComparedModel {
  std::string name;  // "BF16", "RTN", "QAT", "QAT-2"
  std::string path;
  std::string metrics;  // metrics.jsonl of its run; empty without one
  int64_t seed = 0;     // of a QAT run
  bool is_judged = true;
};

// Trains, quantizes and exports what is missing. Prints the command line of every step. Throws Error if a step was
// finished under other settings, and for quantized models whose tensors do not have the same schemes. Returns an exit
// code other than 0 if a step was interrupted.
int make_missing_cells(const ComparisonConfig& config);

// The method with the least KL from the reference on `choose`; the figures of all are kept in out/chosen.json.
std::string best_method(const ComparisonConfig& config);

// In the order in which they are judged: the reference, the best method, QAT, the other methods; at last the base,
// about which nothing is claimed where there is a control.
std::vector<ComparedModel> compared_models(const ComparisonConfig& config, const std::string& best);

}  // namespace qat
