#include "eval/metric_series.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.h"
#include "core/json.h"
#include "core/mapped_file.h"

namespace qat {

void Series::put(double at, double value) {
  const auto found = std::lower_bound(x.begin(), x.end(), at);
  const auto place = found - x.begin();
  if (found != x.end() && *found == at) {
    y[static_cast<size_t>(place)] = value;
  } else {
    x.insert(found, at);
    y.insert(y.begin() + place, value);
  }
}

void visit_metrics(const std::filesystem::path& metrics_file, const VisitMetric& visit) {
  const std::string text = read_text_file(metrics_file);
  int64_t line_number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    const bool complete = end != std::string::npos;
    const std::string_view line = std::string_view(text).substr(begin, complete ? end - begin : std::string::npos);
    begin = complete ? end + 1 : text.size();
    ++line_number;
    if (line.empty() || (!complete && !nlohmann::json::accept(line))) continue;
    const nlohmann::json json = parse_json(line, join(metrics_file.string(), " line ", line_number));
    const auto kind = json.find("kind");
    if (kind != json.end() && kind->is_string()) visit(kind->get<std::string>(), json);
  }
}

double metric_at(const nlohmann::json& line, const std::string& dotted) {
  const nlohmann::json* value = &line;
  for (size_t begin = 0; begin <= dotted.size();) {
    if (!value->is_object()) return std::nan("");
    const size_t end = std::min(dotted.find('.', begin), dotted.size());
    const auto found = value->find(dotted.substr(begin, end - begin));
    if (found == value->end()) return std::nan("");
    value = &*found;
    begin = end + 1;
  }
  return value->is_number() ? value->get<double>() : std::nan("");
}

Series read_metric_series(const std::filesystem::path& metrics_file, const std::string& kind, const std::string& field,
                          std::string name) {
  Series series;
  series.name = std::move(name);
  visit_metrics(metrics_file, [&](const std::string& found, const nlohmann::json& line) {
    if (found != kind) return;
    const double step = metric_at(line, "step");
    const double value = metric_at(line, field);
    if (!std::isnan(step) && !std::isnan(value)) series.put(step, value);
  });
  return series;
}

Series thinned(const Series& series, size_t most) {
  const size_t size = series.x.size();
  const size_t parts = std::max<size_t>(most / 2, 1);
  if (size <= 2 * parts) return series;
  Series result{series.name, {}, {}, series.color};
  for (size_t part = 0; part < parts; ++part) {
    const auto begin = series.y.begin() + static_cast<std::ptrdiff_t>(part * size / parts);
    const auto end = series.y.begin() + static_cast<std::ptrdiff_t>((part + 1) * size / parts);
    const auto [lowest, highest] = std::minmax_element(begin, end);
    for (const auto value : {std::min(lowest, highest), std::max(lowest, highest)}) {
      const auto place = static_cast<size_t>(value - series.y.begin());
      result.put(series.x[place], *value);
    }
  }
  return result;
}

}  // namespace qat
