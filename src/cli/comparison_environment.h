// What differs from run to run of a comparison and is therefore no part of its report: dates, the machine, how long its
// steps took.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "cli/comparison_config.h"

namespace qat {

// environment.json in the comparison's folder.
std::filesystem::path environment_file(const ComparisonConfig& config);

// Adds a step that has just ended to the file, in place of an earlier one of that name. `tokens` that it measured: their
// rate, too.
void record_step(const std::filesystem::path& environment, const std::string& step, double seconds,
                 int64_t tokens = 0);

}  // namespace qat
