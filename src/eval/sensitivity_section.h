// Which parts of a model suffer from quantization, as a section of a report.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>

#include "eval/html_report.h"

namespace qat {

// KL divergence over the layer that alone is quantized.
LinePlot layer_sensitivity_plot(std::span<const double> divergences);

// `figures`: what `compare --sensitivity` writes as JSON. Throws Error for figures that are no such ones.
ReportSection sensitivity_section(const nlohmann::json& figures);

}  // namespace qat
