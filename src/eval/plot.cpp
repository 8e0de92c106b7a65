#include "eval/plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <iterator>

#include "core/error.h"
#include "eval/table.h"

namespace qat {
namespace {

constexpr double kWidth = 720;
constexpr double kHeight = 380;
constexpr double kLeft = 74;
constexpr double kRight = 20;
constexpr double kTop = 66;
constexpr double kBottom = 54;

std::string number(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.1f", value);
  return buffer;
}

std::string color(int wanted, size_t place) {
  const size_t index = wanted == kColorByPlace ? place : static_cast<size_t>(wanted);
  return "var(--series-" + std::to_string(index % static_cast<size_t>(kSeriesColors)) + ")";
}

// Curves differ in their dashes, too: a colour alone says nothing on paper, and little to some eyes.
std::string dashes(const Series& series, size_t place) {
  static constexpr std::array kPatterns{"none", "8 4", "2 3", "12 4 2 4", "5 2", "14 5", "2 6", "8 3 2 3 2 3"};
  static_assert(kPatterns.size() == static_cast<size_t>(kSeriesColors));
  const size_t index = series.color == kColorByPlace ? place : static_cast<size_t>(series.color);
  return kPatterns[index % kPatterns.size()];
}

// What stands in a legend: a name, its CSS colour and, of curves, the dashes.
struct Key {
  std::string name;
  std::string color;
  std::string dashes;
};

// Where values lie on the page.
struct Frame {
  PlotAxis x;
  PlotAxis y;
  std::string at_x(double value) const { return number(left(value)); }
  std::string at_y(double value) const { return number(top(value)); }
  double left(double value) const { return kLeft + x.position(value) * (kWidth - kLeft - kRight); }
  double top(double value) const { return kHeight - kBottom - y.position(value) * (kHeight - kTop - kBottom); }
};

std::string text_at(const std::string& x, const std::string& y, const char* style, const std::string& text,
                    const std::string& more = "") {
  return "<text x='" + x + "' y='" + y + "' class='" + style + "'" + more + ">" + escape_markup(text) + "</text>\n";
}

std::string axes(const Frame& frame, const PlotLabels& labels) {
  const std::string bottom = number(kHeight - kBottom);
  const std::string right = number(kWidth - kRight);
  std::string out;
  for (const double tick : frame.y.ticks()) {
    const std::string y = frame.at_y(tick);
    out += "<line class='grid' x1='" + number(kLeft) + "' x2='" + right + "' y1='" + y + "' y2='" + y + "'/>\n";
    out += text_at(number(kLeft - 8), number(frame.top(tick) + 4), "tick end", tick_label(tick));
  }
  for (const double tick : frame.x.ticks()) {
    const std::string x = frame.at_x(tick);
    out += "<line class='axis' x1='" + x + "' x2='" + x + "' y1='" + bottom + "' y2='" + number(kHeight - kBottom + 4) +
           "'/>\n";
    out += text_at(x, number(kHeight - kBottom + 18), "tick middle", tick_label(tick));
  }
  out += "<line class='axis' x1='" + number(kLeft) + "' x2='" + right + "' y1='" + bottom + "' y2='" + bottom + "'/>\n";
  out += text_at(number((kLeft + kWidth - kRight) / 2), number(kHeight - 12), "label middle", labels.x);
  const std::string middle = number((kTop + kHeight - kBottom) / 2);
  out += text_at("16", middle, "label middle", labels.y, " transform='rotate(-90 16 " + middle + ")'");
  return out;
}

double mark_width(const Key& key) { return key.dashes.empty() ? 12 : 34; }

std::string legend_mark(const Key& key, double left, double top) {
  if (key.dashes.empty()) {
    return "<rect x='" + number(left) + "' y='" + number(top) + "' width='12' height='12' rx='2' fill='" + key.color +
           "'/>\n";
  }
  return "<path class='curve' stroke='" + key.color + "' stroke-dasharray='" + key.dashes + "' d='M" + number(left) +
         " " + number(top + 6) + "h34'/>\n";
}

// Legend entries above the plot, broken into lines; further lines grow upwards from the plot.
struct Legend {
  std::string marks;
  double extra_height = 0;
};

Legend legend(const std::vector<Key>& keys) {
  constexpr double kLineHeight = 20;
  std::vector<double> left;
  std::vector<double> line;
  double x = kLeft;
  double lines = 0;
  for (const Key& key : keys) {
    const double width = mark_width(key) + 6 + 7.2 * static_cast<double>(key.name.size());
    if (x > kLeft && x + width > kWidth - kRight) {
      x = kLeft;
      ++lines;
    }
    left.push_back(x);
    line.push_back(lines);
    x += width + 22;
  }
  Legend result{"", lines * kLineHeight};
  for (size_t i = 0; i < keys.size(); ++i) {
    const double top = 41 + (line[i] - lines) * kLineHeight;
    result.marks += legend_mark(keys[i], left[i], top);
    result.marks += text_at(number(left[i] + mark_width(keys[i]) + 6), number(top + 10.5), "legend", keys[i].name);
  }
  return result;
}

std::string document(const Frame& frame, const PlotLabels& labels, const std::vector<Key>& keys,
                     const std::string& marks) {
  const Legend above = legend(keys);
  return "<svg viewBox='0 " + number(-above.extra_height) + " " + number(kWidth) + " " +
         number(kHeight + above.extra_height) + "' role='img' aria-label='" + escape_markup(labels.title) + "'>\n" +
         text_at("16", number(24 - above.extra_height), "title", labels.title) + above.marks + axes(frame, labels) +
         marks + "</svg>\n";
}

// Whether a pair can be drawn: a gap or a point left out is better than a wrong place.
bool is_drawable(double x, double y, AxisScale x_scale, AxisScale y_scale) {
  return std::isfinite(x) && std::isfinite(y) && (x_scale == AxisScale::Linear || x > 0) &&
         (y_scale == AxisScale::Linear || y > 0);
}

std::string point(const Frame& frame, const Series& series, size_t i, const std::string& fill, const char* radius) {
  return "<circle cx='" + frame.at_x(series.x[i]) + "' cy='" + frame.at_y(series.y[i]) + "' r='" + radius + "' " +
         fill + "><title>" + escape_markup(series.name) + ": " + tick_label(series.x[i]) + ", " +
         format_significant(series.y[i], 4) + "</title></circle>\n";
}

std::string curve(const Frame& frame, const Series& series, AxisScale y_scale, const Key& key) {
  constexpr size_t kMostHoverPoints = 400;
  std::string path;
  std::string points;
  bool begins = true;
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (!is_drawable(series.x[i], series.y[i], AxisScale::Linear, y_scale)) {
      begins = true;
      continue;
    }
    path += (begins ? "M" : "L") + frame.at_x(series.x[i]) + " " + frame.at_y(series.y[i]);
    begins = false;
    if (series.x.size() <= kMostHoverPoints) points += point(frame, series, i, "fill='transparent'", "6");
  }
  // A single point would be an invisible path.
  if (series.x.size() == 1) points = point(frame, series, 0, "fill='" + key.color + "'", "4");
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
    coordinates.keys.push_back({series.name, color(series.color, coordinates.keys.size()), ""});
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

std::string outline(const Frame& frame, const std::vector<double>& counts, const std::string& fill) {
  const double width = (kWidth - kLeft - kRight) / static_cast<double>(counts.size());
  const std::string base = number(kHeight - kBottom);
  std::string path = "M" + number(kLeft) + " " + base;
  for (size_t bin = 0; bin < counts.size(); ++bin) {
    const double x = kLeft + width * static_cast<double>(bin);
    const std::string y = frame.at_y(counts[bin]);
    path += "L" + number(x) + " " + y + "L" + number(x + width) + " " + y;
  }
  path += "L" + number(kWidth - kRight) + " " + base;
  return "<path class='area' fill='" + fill + "' stroke='" + fill + "' d='" + path + "'/>\n";
}

}  // namespace

std::string svg(const LinePlot& plot) {
  Coordinates coordinates = gather(plot.series, AxisScale::Linear, plot.y_scale);
  for (size_t i = 0; i < plot.series.size(); ++i) coordinates.keys[i].dashes = dashes(plot.series[i], i);
  const Frame frame{PlotAxis(AxisScale::Linear, coordinates.x), PlotAxis(plot.y_scale, coordinates.y)};
  std::string marks;
  for (size_t i = 0; i < plot.series.size(); ++i)
    marks += curve(frame, plot.series[i], plot.y_scale, coordinates.keys[i]);
  return document(frame, plot.labels, coordinates.keys, marks);
}

std::string svg(const ScatterPlot& plot) {
  Coordinates coordinates = gather(plot.series, plot.scale, plot.scale);
  if (plot.diagonal) {
    coordinates.x.insert(coordinates.x.end(), coordinates.y.begin(), coordinates.y.end());
    coordinates.y = coordinates.x;
  }
  const Frame frame{PlotAxis(plot.scale, coordinates.x), PlotAxis(plot.scale, coordinates.y)};
  std::string marks;
  if (plot.diagonal) {
    marks += "<line class='diagonal' x1='" + frame.at_x(frame.x.low()) + "' y1='" + frame.at_y(frame.x.low()) +
             "' x2='" + frame.at_x(frame.x.high()) + "' y2='" + frame.at_y(frame.x.high()) + "'/>\n";
  }
  for (size_t s = 0; s < plot.series.size(); ++s) {
    const Series& series = plot.series[s];
    for (size_t i = 0; i < series.x.size(); ++i) {
      if (!is_drawable(series.x[i], series.y[i], plot.scale, plot.scale)) continue;
      marks += point(frame, series, i, "fill='" + coordinates.keys[s].color + "' fill-opacity='0.55'", "3.5");
    }
  }
  return document(frame, plot.labels, coordinates.keys, marks);
}

std::string svg(const Histogram& plot) {
  QAT_CHECK(plot.bins > 0);
  std::vector<double> values;
  std::vector<Key> keys;
  for (const HistogramGroup& group : plot.groups) {
    keys.push_back({group.name, color(group.color, keys.size()), ""});
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
  std::string marks;
  for (size_t i = 0; i < counts.size(); ++i) marks += outline(frame, counts[i], keys[i].color);
  return document(frame, plot.labels, keys, marks);
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
