// report.html of a training run: what it is, where it stands, and the curves of its metrics.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "eval/html_report.h"
#include "eval/run_figures.h"

namespace qat {

// `configuration`: config.resolved.json of the run.
Report make_run_report(const RunFigures& figures, const nlohmann::ordered_json& configuration);

// Reads the metrics and the configuration of a run and writes the report. Curves are thinned out, so that the file of a
// long run is no larger than that of a short one; reading takes about a second per 100,000 steps. Throws Error for a
// file that is missing or malformed.
void write_run_report(const std::filesystem::path& metrics_file, const std::filesystem::path& configuration_file,
                      const std::filesystem::path& report_file);

}  // namespace qat
