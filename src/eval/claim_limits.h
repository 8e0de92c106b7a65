// What the findings of a comparison rest on, and what would have made them fail.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "eval/comparison.h"

namespace qat {

// How the models came about, as far as the comparison knows: a configuration says it, a list of models does not.
struct ComparisonOrigin {
  std::vector<std::string> seeds;      // names of the models that differ in their seed only; empty: not known
  size_t methods = 0;                  // without training, that the second model was chosen among
  std::vector<std::string> chosen_on;  // files that it was chosen on
  std::vector<std::string> aside;      // names of the models that are not judged
};

struct ClaimLimit {
  Judgement judgement;
  double nearest_end = 0;  // the end of the interval nearest to 0; 0 where the interval holds it
  // The fewest documents or questions, those that speak most for the difference, without which it would be 0 or have
  // the other sign.
  int64_t breaks_without = 0;
};

std::vector<ClaimLimit> claim_limits(std::span<const MeasuredModel> models, std::span<const Judgement> judgements);

// A row per judgement: what is claimed, what it rests on, what would have made it fail.
Table claims_table(std::span<const ClaimLimit> limits);
// What no interval covers: seeds, and how the second model was chosen.
std::vector<std::string> origin_sentences(std::span<const MeasuredModel> models, const ComparisonOrigin& origin);

nlohmann::ordered_json claims_json(std::span<const ClaimLimit> limits);

}  // namespace qat
