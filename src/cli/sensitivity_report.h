// Findings about sensitivity as tables, JSON and a report.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cli/sensitivity_findings.h"
#include "eval/html_report.h"

namespace qat {

// For the terminal: by role, by layer, all together.
std::string sensitivity_text(const SensitivityFindings& findings);
nlohmann::ordered_json sensitivity_json(const SensitivityFindings& findings, const std::string& plan);
Report sensitivity_report(const SensitivityFindings& findings, const std::string& plan, const std::string& model,
                          const std::string& data);

}  // namespace qat
