#include "trainers/metrics_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "core/mapped_file.h"

namespace qat {

namespace {

// Offset after the first `lines` line ends, and how many there were.
std::pair<size_t, int64_t> end_of_lines(const std::string& text, int64_t lines) {
  size_t end = 0;
  for (int64_t count = 0; count < lines; ++count) {
    const size_t next = text.find('\n', end);
    if (next == std::string::npos) return {end, count};
    end = next + 1;
  }
  return {end, lines};
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, int64_t kept_lines) : path_(path) {
  size_t end = 0;
  if (std::filesystem::exists(path)) std::tie(end, lines_) = end_of_lines(read_text_file(path), kept_lines);
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail(path.string(), ": cannot be opened: ", std::strerror(errno));
  if (::ftruncate(descriptor_, static_cast<off_t>(end)) != 0) {
    fail(path.string(), ": cannot be cut to the resumed step: ", std::strerror(errno));
  }
}

MetricsLog::~MetricsLog() { ::close(descriptor_); }

void MetricsLog::append(const nlohmann::ordered_json& line) {
  const std::string text = line.dump() + "\n";
  if (::write(descriptor_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    fail(path_.string(), ": cannot be written: ", std::strerror(errno));
  }
  ++lines_;
}

void MetricsLog::sync() {
  if (::fsync(descriptor_) != 0) fail(path_.string(), ": cannot be synced: ", std::strerror(errno));
}

}  // namespace qat
