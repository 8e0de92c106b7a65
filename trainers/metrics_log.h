// metrics.jsonl: a line of JSON per step and per evaluation, appended.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace qat {

class MetricsLog {
 public:
  // Keeps the first `kept_lines` lines of the file, if there is one, and drops what follows: steps that a resumed run
  // repeats.
  MetricsLog(const std::filesystem::path& path, int64_t kept_lines);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  // Throws Error if the line cannot be written (disk full).
  void append(const nlohmann::ordered_json& line);
  // Makes all lines durable.
  void sync();
  int64_t lines() const { return lines_; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  int64_t lines_ = 0;
};

}  // namespace qat
