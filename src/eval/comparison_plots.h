// The plots of a comparison's report.
#pragma once

#include <span>

#include "eval/comparison.h"
#include "eval/html_report.h"

namespace qat {

// KL over bits per weight. Empty if no model but the first has a KL.
ReportSection size_section(std::span<const MeasuredModel> models);
// The share of tokens whose KL lies above a value.
LinePlot tails_plot(std::span<const MeasuredModel> models);
// With Wilson's intervals, in percent.
IntervalPlot accuracy_plot(std::span<const MeasuredModel> models);
// KL per document: how it is distributed, and the third model's over the second's.
ReportSection documents_section(std::span<const MeasuredModel> models);

}  // namespace qat
