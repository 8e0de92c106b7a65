#include "eval/plot.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "core/error.h"
#include "eval/plot_frame.h"
#include "eval/table.h"

namespace qat {

using namespace plotting;

namespace {

std::string axes(const Frame& frame, const PlotLabels& labels) {
  return y_axis(frame, labels.y) + x_axis(frame, labels.x);
}

std::string point(const Frame& frame, const Series& series, size_t i, const std::string& fill, double radius,
                  size_t shape = 0) {
  return "<path d='" + marker(shape, frame.left(series.x[i]), frame.top(series.y[i]), radius) + "' " + fill +
         "><title>" + escape_markup(series.name) + ": " + tick_label(series.x[i]) + ", " +
         format_significant(series.y[i], 4) + "</title></path>\n";
}

std::string curve(const Frame& frame, const LinePlot& plot, const Series& series, const Key& key) {
  constexpr size_t kMostHoverPoints = 400;
  std::string path;
  std::string points;
  bool begins = true;
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (!is_drawable(series.x[i], series.y[i], plot.x_scale, plot.y_scale)) {
      begins = true;
      continue;
    }
    path += (begins ? "M" : "L") + frame.at_x(series.x[i]) + " " + frame.at_y(series.y[i]);
    begins = false;
    if (series.x.size() <= kMostHoverPoints) points += point(frame, series, i, "fill='transparent'", 6);
  }
  // A single point would be an invisible path.
  if (series.x.size() == 1) points = point(frame, series, 0, "fill='" + key.color + "'", 4);
  return "<path class='curve' stroke='" + key.color + "' stroke-dasharray='" + key.dashes + "' d='" + path + "'/>\n" +
         points;
}

// Both coordinates of all series, as far as they can be drawn.
struct Coordinates {
  std::vector<double> x;
  std::vector<double> y;
  std::vector<Key> keys;
};

Coordinates gather(const std::vector<Series>& all, AxisScale x_scale, AxisScale y_scale) {
  Coordinates coordinates;
  for (const Series& series : all) {
    QAT_CHECK(series.x.size() == series.y.size());
    const size_t place = coordinates.keys.size();
    coordinates.keys.push_back({series.name, color(series.color, place), "", place});
    for (size_t i = 0; i < series.x.size(); ++i) {
      if (!is_drawable(series.x[i], series.y[i], x_scale, y_scale)) continue;
      coordinates.x.push_back(series.x[i]);
      coordinates.y.push_back(series.y[i]);
    }
  }
  return coordinates;
}

// Counts per bin. The axis' ends are the first and last edge.
std::vector<double> count_bins(const PlotAxis& axis, const std::vector<double>& values, size_t bins) {
  std::vector<double> counts(bins, 0.0);
  for (const double value : values) {
    if (std::isnan(value)) continue;
    const double position = axis.position(value) * static_cast<double>(bins);
    counts[std::min(static_cast<size_t>(position), bins - 1)] += 1;
  }
  return counts;
}

std::string outline(const Frame& frame, const std::vector<double>& counts, const Key& key) {
  const double width = (kWidth - kLeft - kRight) / static_cast<double>(counts.size());
  const std::string base = number(kHeight - kBottom);
  std::string path = "M" + number(kLeft) + " " + base;
  for (size_t bin = 0; bin < counts.size(); ++bin) {
    const double x = kLeft + width * static_cast<double>(bin);
    const std::string y = frame.at_y(counts[bin]);
    path += "L" + number(x) + " " + y + "L" + number(x + width) + " " + y;
  }
  path += "L" + number(kWidth - kRight) + " " + base;
  return "<path class='area' fill='" + key.color + "' stroke='" + key.color + "' stroke-dasharray='" + key.dashes +
         "' d='" + path + "'/>\n";
}

}  // namespace

std::string svg(const LinePlot& plot) {
  Coordinates coordinates = gather(plot.series, plot.x_scale, plot.y_scale);
  for (size_t i = 0; i < plot.series.size(); ++i) coordinates.keys[i].dashes = dashes(plot.series[i].color, i);
  const Frame frame{PlotAxis(plot.x_scale, coordinates.x), PlotAxis(plot.y_scale, coordinates.y)};
  std::string drawn = axes(frame, plot.labels);
  for (size_t i = 0; i < plot.series.size(); ++i) drawn += curve(frame, plot, plot.series[i], coordinates.keys[i]);
  return document(frame, plot.labels.title, coordinates.keys, drawn);
}

std::string svg(const ScatterPlot& plot) {
  Coordinates coordinates = gather(plot.series, plot.scale, plot.scale);
  if (plot.diagonal) {
    coordinates.x.insert(coordinates.x.end(), coordinates.y.begin(), coordinates.y.end());
    coordinates.y = coordinates.x;
  }
  const Frame frame{PlotAxis(plot.scale, coordinates.x), PlotAxis(plot.scale, coordinates.y)};
  std::string drawn = axes(frame, plot.labels);
  if (plot.diagonal) {
    drawn += "<line class='diagonal' x1='" + frame.at_x(frame.x.low()) + "' y1='" + frame.at_y(frame.x.low()) +
             "' x2='" + frame.at_x(frame.x.high()) + "' y2='" + frame.at_y(frame.x.high()) + "'/>\n";
  }
  for (size_t s = 0; s < plot.series.size(); ++s) {
    const Series& series = plot.series[s];
    for (size_t i = 0; i < series.x.size(); ++i) {
      if (!is_drawable(series.x[i], series.y[i], plot.scale, plot.scale)) continue;
      drawn += point(frame, series, i, "fill='" + coordinates.keys[s].color + "' fill-opacity='0.55'", 3.5, s);
    }
  }
  return document(frame, plot.labels.title, coordinates.keys, drawn);
}

std::string svg(const Histogram& plot) {
  QAT_CHECK(plot.bins > 0);
  std::vector<double> values;
  std::vector<Key> keys;
  for (const HistogramGroup& group : plot.groups) {
    keys.push_back({group.name, color(group.color, keys.size()), dashes(group.color, keys.size())});
    std::ranges::copy_if(group.values, std::back_inserter(values), [](double value) { return std::isfinite(value); });
  }
  if (plot.x_scale == AxisScale::Logarithmic && !values.empty()) {
    const double least = 1e-6 * *std::ranges::max_element(values);
    for (double& value : values) value = std::max(value, least);
  }
  const PlotAxis x(plot.x_scale, values);
  std::vector<std::vector<double>> counts;
  std::vector<double> heights{0.0};
  for (const HistogramGroup& group : plot.groups) {
    counts.push_back(count_bins(x, group.values, static_cast<size_t>(plot.bins)));
    heights.push_back(*std::ranges::max_element(counts.back()));
  }
  const Frame frame{x, PlotAxis(AxisScale::Linear, heights)};
  std::string drawn = axes(frame, plot.labels);
  for (size_t i = 0; i < counts.size(); ++i) drawn += outline(frame, counts[i], keys[i]);
  return document(frame, plot.labels.title, keys, drawn);
}

std::string escape_markup(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace qat
