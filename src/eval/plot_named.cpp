#include <algorithm>
#include <cmath>
#include <numeric>

#include "eval/plot_frame.h"
#include "eval/table.h"

namespace qat {

using namespace plotting;

namespace {

// A name and where it is written.
struct Label {
  double x;
  double y;
  bool left_of_point;
};

// Names stand right of their points, near the right end left of them. From top to bottom each is moved below the one
// above it as far as it would cover it.
std::vector<Label> place_labels(const Frame& frame, const std::vector<NamedPoint>& points) {
  constexpr double kLineHeight = 16;
  constexpr double kRoom = 150;  // that a name may need
  std::vector<size_t> order(points.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return frame.top(points[a].y) < frame.top(points[b].y); });
  std::vector<Label> labels(points.size());
  for (size_t place = 0; place < order.size(); ++place) {
    const NamedPoint& point = points[order[place]];
    Label& label = labels[order[place]];
    label = {frame.left(point.x), frame.top(point.y) + 4, frame.left(point.x) > kWidth - kRight - kRoom};
    for (size_t above = 0; above < place; ++above) {
      const Label& other = labels[order[above]];
      if (std::fabs(other.x - label.x) < kRoom && label.y < other.y + kLineHeight) label.y = other.y + kLineHeight;
    }
  }
  return labels;
}

std::string named_point(const Frame& frame, const NamedPoint& point, const Label& label, size_t place) {
  const double side = label.left_of_point ? -1 : 1;
  const double x = frame.left(point.x), y = frame.top(point.y);
  std::string out;
  if (label.y - 4 > y + 3) {
    out += "<path class='leader' d='M" + number(x) + " " + number(y) + "L" + number(x + side * 12) + " " +
           number(label.y - 4) + "'/>\n";
  }
  out += "<path fill='" + color(kColorByPlace, place) + "' d='" + marker(place, x, y, 5) + "'><title>" +
         escape_markup(point.name) + ": " + tick_label(point.x) + ", " + format_significant(point.y, 4) +
         "</title></path>\n";
  return out + text_at(x + side * 14, label.y, label.left_of_point ? "legend end" : "legend", point.name);
}

}  // namespace

std::string svg(const NamedPoints& plot) {
  std::vector<NamedPoint> points;
  std::ranges::copy_if(plot.points, std::back_inserter(points), [&](const NamedPoint& point) {
    return is_drawable(point.x, point.y, AxisScale::Linear, plot.y_scale);
  });
  std::vector<double> x, y;
  for (const NamedPoint& point : points) {
    x.push_back(point.x);
    y.push_back(point.y);
  }
  const Frame frame{PlotAxis(AxisScale::Linear, x), PlotAxis(plot.y_scale, y)};
  const std::vector<Label> labels = place_labels(frame, points);
  std::string drawn = y_axis(frame, plot.labels.y) + x_axis(frame, plot.labels.x);
  for (size_t i = 0; i < points.size(); ++i) drawn += named_point(frame, points[i], labels[i], i);
  return document(frame, plot.labels.title, {}, drawn);
}

std::string svg(const IntervalPlot& plot) {
  constexpr double kRowHeight = 30;
  size_t longest = 0;
  std::vector<double> ends;
  for (const IntervalPlot::Row& row : plot.rows) {
    longest = std::max(longest, row.name.size());
    ends.insert(ends.end(), {row.estimate.interval.low, row.estimate.value, row.estimate.interval.high});
  }
  const double names = std::clamp(8.0 * static_cast<double>(longest) + 32, kLeft, kWidth / 2);
  const Frame frame{PlotAxis(AxisScale::Linear, ends), PlotAxis(AxisScale::Linear, {}), names,
                    kTop + kRowHeight * static_cast<double>(plot.rows.size())};
  std::string drawn = x_axis(frame, plot.x);
  for (size_t i = 0; i < plot.rows.size(); ++i) {
    const auto& [name, estimate] = plot.rows[i];
    const double y = kTop + kRowHeight * (static_cast<double>(i) + 0.5);
    const std::string left = frame.at_x(estimate.interval.low), right = frame.at_x(estimate.interval.high);
    drawn += text_at(names - 14, y + 4, "legend end", name);
    drawn += "<path class='curve' stroke='var(--series-0)' d='M" + left + " " + number(y) + "H" + right + "M" + left +
             " " + number(y - 5) + "v10M" + right + " " + number(y - 5) + "v10'/>\n";
    drawn += "<path fill='var(--series-0)' d='" + marker(0, frame.left(estimate.value), y, 5) + "'><title>" +
             escape_markup(name) + ": " + format_significant(estimate.value, 4) + " (" +
             format_significant(estimate.interval.low, 4) + " – " + format_significant(estimate.interval.high, 4) +
             ")</title></path>\n";
  }
  return document(frame, plot.title, {}, drawn);
}

}  // namespace qat
