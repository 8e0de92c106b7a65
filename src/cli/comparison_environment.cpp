#include "cli/comparison_environment.h"

#include <algorithm>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/json.h"
#include "core/output_file.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

// "AMD EPYC, family 26, model 17": processors of several kinds may have one name.
std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string name = "unknown", family, model;
  for (std::string line; std::getline(file, line) && !line.empty();) {
    const auto value = [&] { return line.substr(std::min(line.size(), line.find(':') + 2)); };
    if (line.starts_with("model name")) name = value();
    if (line.starts_with("cpu family")) family = ", family " + value();
    if (line.starts_with("model\t")) model = ", model " + value();
  }
  return name + family + model;
}

}  // namespace

fs::path environment_file(const ComparisonConfig& config) { return fs::path(config.out) / "environment.json"; }

void record_step(const fs::path& environment, const std::string& step, double seconds, int64_t tokens) {
  nlohmann::ordered_json document;
  if (fs::exists(environment)) document = load_json(environment);
  char date[32];
  const std::time_t now = std::time(nullptr);
  std::strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  nlohmann::ordered_json entry{{"finished", date},
                               {"seconds", seconds},
                               {"processor", processor_name()},
                               {"threads", std::thread::hardware_concurrency()}};
  if (tokens > 0) entry["tokens_per_second"] = static_cast<double>(tokens) / seconds;
  document["steps"][step] = std::move(entry);
  write_file(environment, document.dump(1) + "\n");
}

}  // namespace qat
