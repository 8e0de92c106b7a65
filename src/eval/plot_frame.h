// What all plots are drawn with: the frame with its axes, the legend, marks that differ in more than their colour.
// Used by the plots only.
#pragma once

#include <string>
#include <vector>

#include "eval/plot.h"
#include "eval/plot_axis.h"

namespace qat::plotting {

// Of the page that a plot is drawn on, in its own units.
constexpr double kWidth = 720;
constexpr double kHeight = 380;
constexpr double kLeft = 74;
constexpr double kRight = 20;
constexpr double kTop = 66;
constexpr double kBottom = 54;

// A coordinate, with one digit after the point.
std::string number(double value);

// The colour of the series with this index in its plot (or with the colour that is wanted), as CSS.
std::string color(int wanted, size_t place);
// Curves differ in their dashes, too: a colour alone says nothing on paper, and little to some eyes.
std::string dashes(int wanted, size_t place);
// So do points in their shape; around (x, y).
std::string marker(size_t shape, double x, double y, double radius);

// What stands in a legend: a name, its CSS colour and, of curves, the dashes, of points the shape.
struct Key {
  std::string name;
  std::string color;
  std::string dashes;
  size_t shape = 0;
};

// Where values lie on the page.
struct Frame {
  PlotAxis x;
  PlotAxis y;
  double left_edge = kLeft;
  double bottom_edge = kHeight - kBottom;

  double left(double value) const { return left_edge + x.position(value) * (kWidth - left_edge - kRight); }
  double top(double value) const { return bottom_edge - y.position(value) * (bottom_edge - kTop); }
  std::string at_x(double value) const { return number(left(value)); }
  std::string at_y(double value) const { return number(top(value)); }
};

// `style`: CSS classes.
std::string text_at(double x, double y, const char* style, const std::string& text, const std::string& more = "");

std::string x_axis(const Frame& frame, const std::string& label);
std::string y_axis(const Frame& frame, const std::string& label);

// The whole SVG element: title, legend of `keys` if there are any, and what is drawn.
std::string document(const Frame& frame, const std::string& title, const std::vector<Key>& keys,
                     const std::string& drawn);

// Whether a pair can be drawn: a gap or a point left out is better than a wrong place.
bool is_drawable(double x, double y, AxisScale x_scale, AxisScale y_scale);

}  // namespace qat::plotting
