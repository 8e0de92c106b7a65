// Curves read from a run's metrics.jsonl: a JSON object per line, of the kinds "step", "eval" and "quantization".
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
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

  // The value at `at`, in order of x; it replaces one that is there.
  void put(double at, double value);
};

// Calls `visit` for every line that has a kind, with it. A last line that a killed run cut off is left out. Throws
// Error with the line number for other malformed lines.
using VisitMetric = std::function<void(const std::string& kind, const nlohmann::json& line)>;
void visit_metrics(const std::filesystem::path& metrics_file, const VisitMetric& visit);

// The number at a dotted path of a line ("codes.changed"); NaN if there is none.
double metric_at(const nlohmann::json& line, const std::string& dotted);

// The values of the number `field` in lines of this kind, over the number `step`. Lines without the field are skipped;
// of several lines with one step (a resumed run) the last counts.
Series read_metric_series(const std::filesystem::path& metrics_file, const std::string& kind, const std::string& field,
                          std::string name);

// At most `most` points of it, for a plot: of every equal run of points the lowest and the highest, so that no peak is
// lost.
Series thinned(const Series& series, size_t most = 1000);

}  // namespace qat
