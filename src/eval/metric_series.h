// Curves read from a run's metrics.jsonl: a JSON object per line, one line per step.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace qat {

// Colour of a series whose place in its plot decides.
inline constexpr int kColorByPlace = -1;

// A named curve or point set. `color` keeps a model's colour the same in plots that show different sets of models.
struct Series {
  std::string name;
  std::vector<double> x;
  std::vector<double> y;
  int color = kColorByPlace;
};

// The values of the number `field` (dotted for nested objects: "evaluation.kl") over the number `step`, in order of the
// step. Lines without the field are skipped; of several lines with one step (a resumed run) the last counts; a last
// line that a killed run cut off is ignored. Throws Error with the line number for other malformed lines.
Series read_metric_series(const std::filesystem::path& metrics_file, const std::string& field, std::string name);

}  // namespace qat
