#include "eval/plot_frame.h"

#include <array>
#include <cmath>
#include <cstdio>

namespace qat::plotting {
namespace {

size_t place_in_palette(int wanted, size_t place) {
  return (wanted == kColorByPlace ? place : static_cast<size_t>(wanted)) % static_cast<size_t>(kSeriesColors);
}

double mark_width(const Key& key) { return key.dashes.empty() ? 12 : 34; }

std::string legend_mark(const Key& key, double left, double top) {
  if (key.dashes.empty())
    return "<path class='key' fill='" + key.color + "' d='" + marker(key.shape, left + 6, top + 6, 5) + "'/>\n";
  return "<path class='key curve' stroke='" + key.color + "' stroke-dasharray='" + key.dashes + "' d='M" +
         number(left) + " " + number(top + 6) + "h34'/>\n";
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
    result.marks += text_at(left[i] + mark_width(keys[i]) + 6, top + 10.5, "legend", keys[i].name);
  }
  return result;
}

}  // namespace

std::string number(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.1f", value);
  return buffer;
}

std::string color(int wanted, size_t place) {
  return "var(--series-" + std::to_string(place_in_palette(wanted, place)) + ")";
}

std::string dashes(int wanted, size_t place) {
  static constexpr std::array kPatterns{"none", "8 4", "2 3", "12 4 2 4", "5 2", "14 5", "2 6", "8 3 2 3 2 3"};
  static_assert(kPatterns.size() == static_cast<size_t>(kSeriesColors));
  return kPatterns[place_in_palette(wanted, place)];
}

std::string marker(size_t shape, double x, double y, double radius) {
  const std::string r = number(radius), whole = number(2 * radius), back = number(-2 * radius);
  const std::string start = "M" + number(x - radius) + " ";
  switch (shape % 4) {
    case 0:  // circle
      return start + number(y) + "a" + r + " " + r + " 0 1 0 " + whole + " 0a" + r + " " + r + " 0 1 0 " + back + " 0z";
    case 1:  // square
      return start + number(y - radius) + "h" + whole + "v" + whole + "h" + back + "z";
    case 2:  // triangle
      return start + number(y + radius) + "l" + r + " " + back + "l" + r + " " + whole + "z";
    default:  // diamond
      return start + number(y) + "l" + r + " " + number(-radius) + "l" + r + " " + r + "l" + number(-radius) + " " + r +
             "z";
  }
}

std::string text_at(double x, double y, const char* style, const std::string& text, const std::string& more) {
  return "<text x='" + number(x) + "' y='" + number(y) + "' class='" + style + "'" + more + ">" + escape_markup(text) +
         "</text>\n";
}

std::string x_axis(const Frame& frame, const std::string& label) {
  const std::string bottom = number(frame.bottom_edge);
  std::string out;
  for (const double tick : frame.x.ticks()) {
    const std::string x = frame.at_x(tick);
    out += "<line class='axis' x1='" + x + "' x2='" + x + "' y1='" + bottom + "' y2='" + number(frame.bottom_edge + 4) +
           "'/>\n";
    out += text_at(frame.left(tick), frame.bottom_edge + 18, "tick middle", tick_label(tick));
  }
  out += "<line class='axis' x1='" + number(frame.left_edge) + "' x2='" + number(kWidth - kRight) + "' y1='" + bottom +
         "' y2='" + bottom + "'/>\n";
  return out +
         text_at((frame.left_edge + kWidth - kRight) / 2, frame.bottom_edge + kBottom - 12, "label middle", label);
}

std::string y_axis(const Frame& frame, const std::string& label) {
  std::string out;
  for (const double tick : frame.y.ticks()) {
    const std::string y = frame.at_y(tick);
    out += "<line class='grid' x1='" + number(frame.left_edge) + "' x2='" + number(kWidth - kRight) + "' y1='" + y +
           "' y2='" + y + "'/>\n";
    out += text_at(frame.left_edge - 8, frame.top(tick) + 4, "tick end", tick_label(tick));
  }
  const double middle = (kTop + frame.bottom_edge) / 2;
  return out + text_at(16, middle, "label middle", label, " transform='rotate(-90 16 " + number(middle) + ")'");
}

std::string document(const Frame& frame, const std::string& title, const std::vector<Key>& keys,
                     const std::string& drawn) {
  const Legend above = legend(keys);
  const double height = frame.bottom_edge + kBottom + above.extra_height;
  return "<svg viewBox='0 " + number(-above.extra_height) + " " + number(kWidth) + " " + number(height) +
         "' role='img' aria-label='" + escape_markup(title) + "'>\n" +
         text_at(16, 24 - above.extra_height, "title", title) + above.marks + drawn + "</svg>\n";
}

bool is_drawable(double x, double y, AxisScale x_scale, AxisScale y_scale) {
  return std::isfinite(x) && std::isfinite(y) && (x_scale == AxisScale::Linear || x > 0) &&
         (y_scale == AxisScale::Linear || y > 0);
}

}  // namespace qat::plotting
