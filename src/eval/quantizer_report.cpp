#include "eval/quantizer_report.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>

namespace qat {
namespace {

constexpr size_t kWorst = 12;

// "layers.3.mlp.up_proj.weight": layer 3, part "mlp.up_proj.weight".
struct Place {
  double layer;
  std::string part;
};

std::optional<Place> place_of(std::string_view name) {
  static constexpr std::string_view kPrefix = "layers.";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  int64_t layer = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  const auto digits = static_cast<size_t>(end - name.data());
  if (error != std::errc() || digits + 1 >= name.size() || name[digits] != '.') return std::nullopt;
  return Place{static_cast<double>(layer), std::string(name.substr(digits + 1))};
}

// Few enough kinds of quantizers share a plot to tell their curves apart.
std::string plot_of(const std::string& part) {
  if (part.ends_with("_cache")) return "KV cache";
  if (part.ends_with(".input")) return "inputs of linears";
  const std::string what = part.ends_with(".output") ? "outputs of " : "weights of ";
  if (part.starts_with("self_attn.")) return what + "attention";
  if (part.starts_with("mlp.")) return what + "MLPs";
  return what + "other parts";
}

std::vector<LinePlot> error_plots(const RunFigures& figures) {
  std::map<std::string, std::map<std::string, Series>> plots;
  for (const auto& [name, measured] : figures.quantizers) {
    const auto place = place_of(name);
    if (!place || std::isnan(measured.signal_to_noise)) continue;
    Series& series = plots[plot_of(place->part)][place->part];
    series.name = place->part;
    series.put(place->layer, measured.signal_to_noise);
  }
  std::vector<LinePlot> result;
  for (auto& [title, curves] : plots) {
    LinePlot plot{{"Signal to noise: " + title, "layer", "dB"}, AxisScale::Linear, {}};
    for (auto& [part, series] : curves) plot.series.push_back(std::move(series));
    result.push_back(std::move(plot));
  }
  return result;
}

Table worst(const RunFigures& figures) {
  std::vector<std::pair<std::string, QuantizerFigures>> order(figures.quantizers.begin(), figures.quantizers.end());
  std::erase_if(order, [](const auto& entry) { return std::isnan(entry.second.signal_to_noise); });
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.second.signal_to_noise < b.second.signal_to_noise; });
  order.resize(std::min(order.size(), kWorst));
  Table table{{"largest errors", "signal to noise", "at first", "clipped", "codes changed"}, {}};
  for (const auto& [name, measured] : order) {
    table.rows.push_back({name, format_fixed(measured.signal_to_noise, 2) + " dB",
                          format_fixed(measured.first_signal_to_noise, 2) + " dB",
                          format_percent(measured.clipping_rate, 2),
                          std::isnan(measured.codes_changed) ? "" : format_percent(measured.codes_changed, 2)});
  }
  return table;
}

Series in_percent(const Series& series, const char* name) {
  Series result = thinned(series);
  result.name = name;
  for (double& value : result.y) value *= 100;
  return result;
}

}  // namespace

ReportSection quantization_section(const RunFigures& figures) {
  ReportSection section{"Quantization", {}};
  if (!figures.codes_changed.x.empty()) {
    section.items.emplace_back(std::string(
        "Codes of trained weights that differ from those at the evaluation before, in a sample of every weight. Where "
        "many of "
        "them return to the code they had before their last change, weights oscillate around rounding edges."));
    section.items.emplace_back(LinePlot{{"Codes that changed between evaluations", "step", "% of codes"},
                                        AxisScale::Linear,
                                        {in_percent(figures.codes_changed, "changed"),
                                         in_percent(figures.codes_returned, "of these returned to an earlier code")}});
  }
  section.items.emplace_back(
      std::string("Signal to noise of every quantizer at the last evaluation: weights against their masters, "
                  "activations on held-out data. "
                  "6 dB are one bit."));
  for (LinePlot& plot : error_plots(figures)) section.items.emplace_back(std::move(plot));
  section.items.emplace_back(worst(figures));
  return section;
}

}  // namespace qat
