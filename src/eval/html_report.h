// A report as one self-contained HTML file: no scripts, no external resources, readable on light and dark pages.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "eval/plot.h"
#include "eval/table.h"

namespace qat {

// A string is a paragraph.
using ReportItem = std::variant<std::string, Table, LinePlot, ScatterPlot, Histogram, NamedPoints, IntervalPlot>;

struct ReportSection {
  std::string heading;
  std::vector<ReportItem> items;
};

struct Report {
  std::string title;
  std::vector<std::string> introduction;  // paragraphs
  std::vector<ReportSection> sections;
};

// The HTML text. All strings are plain text. The first column of a table names its rows.
std::string render_html(const Report& report);

}  // namespace qat
