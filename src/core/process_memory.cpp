#include "core/process_memory.h"

#include <malloc.h>

#include <cstdio>
#include <fstream>
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

void keep_freed_memory() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
}

}  // namespace qat
