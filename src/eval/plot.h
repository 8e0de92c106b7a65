// Plots as SVG text for the HTML report. Colours are CSS variables that the report's style sheet defines for light and
// dark pages.
#pragma once

#include <string>
#include <vector>

#include "eval/metric_series.h"
#include "eval/plot_axis.h"
#include "eval/statistics.h"

namespace qat {

struct PlotLabels {
  std::string title;
  std::string x;
  std::string y;
};

// Curves of y over x.
struct LinePlot {
  PlotLabels labels;
  AxisScale y_scale = AxisScale::Linear;
  std::vector<Series> series;
  AxisScale x_scale = AxisScale::Linear;
};

// Points; with `diagonal`, both axes cover the same range and the line y = x is drawn.
struct ScatterPlot {
  PlotLabels labels;
  AxisScale scale = AxisScale::Linear;  // of both axes
  bool diagonal = false;
  std::vector<Series> series;
};

struct HistogramGroup {
  std::string name;
  std::vector<double> values;
  int color = kColorByPlace;
};

// How often values fall into each of `bins` equal (with Logarithmic: equal ratio) parts, one outline per group. On a
// logarithmic axis values below a millionth of the largest, and those <= 0, fall into the first bin.
struct Histogram {
  PlotLabels labels;
  AxisScale x_scale = AxisScale::Linear;
  int bins = 30;
  std::vector<HistogramGroup> groups;
};

struct NamedPoint {
  std::string name;
  double x = 0;
  double y = 0;
};

// Points with their names beside them, moved apart where they would cover each other. Points that a logarithmic axis
// has no place for are left out.
struct NamedPoints {
  PlotLabels labels;
  AxisScale y_scale = AxisScale::Linear;
  std::vector<NamedPoint> points;
};

// A row per name: a dot at the estimate and a line over its interval.
struct IntervalPlot {
  std::string title;
  std::string x;
  struct Row {
    std::string name;
    Estimate estimate;
  };
  std::vector<Row> rows;
};

std::string svg(const LinePlot& plot);
std::string svg(const ScatterPlot& plot);
std::string svg(const Histogram& plot);
std::string svg(const NamedPoints& plot);
std::string svg(const IntervalPlot& plot);

// Number of distinct series colours (CSS variables --series-0 …); further series begin again.
inline constexpr int kSeriesColors = 8;

// Text with &, <, >, " replaced for HTML and SVG.
std::string escape_markup(const std::string& text);

}  // namespace qat
