#include "core/process_memory.h"

#include <malloc.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string>

namespace qat {

MemoryUse current_memory_use() {
  std::ifstream status("/proc/self/status");
  MemoryUse use;
  for (std::string line; std::getline(status, line);) {
    unsigned long long kilobytes = 0;
    if (std::sscanf(line.c_str(), "VmHWM: %llu kB", &kilobytes) == 1) use.peak_resident = kilobytes * 1024;
    if (std::sscanf(line.c_str(), "RssAnon: %llu kB", &kilobytes) == 1) use.anonymous = kilobytes * 1024;
    if (std::sscanf(line.c_str(), "RssFile: %llu kB", &kilobytes) == 1) use.file_backed = kilobytes * 1024;
  }
  return use;
}

namespace {

// The number behind a name at the start of a line; without a name, the file's first word. Empty if it is no number.
std::optional<uint64_t> number_in(const std::filesystem::path& file, const std::string& name = "") {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string found;
    if (!name.empty() && !(words >> found && found == name)) continue;
    uint64_t number = 0;
    return words >> number ? std::optional(number) : std::nullopt;
  }
  return std::nullopt;
}

// Of one control group (version 2). Files that the kernel would drop are no burden.
uint64_t left_in_group(const std::filesystem::path& group) {
  const auto limit = number_in(group / "memory.max");
  const auto used = number_in(group / "memory.current");
  if (!limit || !used) return std::numeric_limits<uint64_t>::max();
  const uint64_t droppable = number_in(group / "memory.stat", "inactive_file").value_or(0);
  const uint64_t burden = *used - std::min(*used, droppable);
  return *limit - std::min(*limit, burden);
}

}  // namespace

uint64_t available_memory() {
  const std::filesystem::path root("/sys/fs/cgroup");
  uint64_t available = left_in_group(root);
  if (const auto kilobytes = number_in("/proc/meminfo", "MemAvailable:")) {
    available = std::min(available, *kilobytes * 1024);
  }
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (!line.starts_with("0::/")) continue;
    for (std::filesystem::path group(line.substr(4)); !group.empty(); group = group.parent_path()) {
      available = std::min(available, left_in_group(root / group));
    }
  }
  return available;
}

void keep_freed_memory() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
}

void return_freed_memory() { malloc_trim(0); }

}  // namespace qat
