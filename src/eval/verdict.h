// What a family of comparisons allows to be said, in words.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "eval/paired_difference.h"

namespace qat {

// P-values corrected for being looked at together (Holm 1979): the chance that any of them falls to a level without a
// difference behind it is at most that level. In the order of the input.
std::vector<double> holm_adjusted(std::span<const double> p_values);

struct Comparison {
  PairedDifference difference;  // candidate - baseline
  bool smaller_is_better = true;
  std::function<std::string(double)> format;  // of the size of a difference
};

enum class Finding { NoDifferenceShown, Better, Worse, NotJudged };

struct Verdict {
  Finding finding = Finding::NoDifferenceShown;
  double adjusted_p_value = 1;
  // "better by 0.0123 (0.008 – 0.016)", "no difference shown", "not judged: 4 documents, 30 are needed"
  std::string text;
};

// A difference counts as shown if its p-value stays below `level` after Holm's correction over the whole family.
// "No difference shown" is not "equal": the interval says how large a difference may have gone unseen.
std::vector<Verdict> judge(std::span<const Comparison> family, double level = 0.05);

}  // namespace qat
