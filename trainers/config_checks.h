// What a training configuration must satisfy beyond its types.
#pragma once

#include <string>
#include <vector>

namespace qat {

struct TrainConfig;

// Appends a line per value that is out of range, path that does not exist, and contradiction between fields.
void check_values(const TrainConfig& config, std::vector<std::string>& problems);

}  // namespace qat
