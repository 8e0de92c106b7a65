#include "eval/metric_series.h"

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.h"
#include "core/json.h"
#include "core/mapped_file.h"

namespace qat {
namespace {

// The number at a dotted path, or NaN.
double number_at(const nlohmann::json& line, const std::string& dotted) {
  const nlohmann::json* value = &line;
  for (size_t begin = 0; begin <= dotted.size();) {
    const size_t end = std::min(dotted.find('.', begin), dotted.size());
    const auto found = value->find(dotted.substr(begin, end - begin));
    if (!value->is_object() || found == value->end()) return std::nan("");
    value = &*found;
    begin = end + 1;
  }
  return value->is_number() ? value->get<double>() : std::nan("");
}

}  // namespace

Series read_metric_series(const std::filesystem::path& metrics_file, const std::string& field, std::string name) {
  const std::string text = read_text_file(metrics_file);
  std::map<double, double> values;
  int64_t line_number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    const bool complete = end != std::string::npos;
    const std::string_view line = std::string_view(text).substr(begin, complete ? end - begin : std::string::npos);
    begin = complete ? end + 1 : text.size();
    ++line_number;
    if (line.empty() || (!complete && !nlohmann::json::accept(line))) continue;
    const nlohmann::json json = parse_json(line, join(metrics_file.string(), " line ", line_number));
    const double step = number_at(json, "step");
    const double value = number_at(json, field);
    if (!std::isnan(step) && !std::isnan(value)) values[step] = value;
  }
  Series series;
  series.name = std::move(name);
  for (const auto& [step, value] : values) {
    series.x.push_back(step);
    series.y.push_back(value);
  }
  return series;
}

}  // namespace qat
