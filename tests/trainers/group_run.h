// A group of processes on this machine, started as torchrun starts them.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "support/temporary_folder.h"

namespace qat::testing {

// A port that nobody uses at the moment.
int free_port();

class GroupRun {
 public:
  // Starts `size` processes; `words(rank)` are program and arguments.
  template <class Words>
  GroupRun(int size, const Words& words) : port_(free_port()) {
    for (int rank = 0; rank < size; ++rank) start(rank, size, words(rank));
  }
  // Kills what still runs.
  ~GroupRun();
  GroupRun(const GroupRun&) = delete;
  GroupRun& operator=(const GroupRun&) = delete;

  void signal(int rank, int number) const;
  // Exit codes by rank, 128 + signal for a process that was killed; the test fails if one still runs after `limit`.
  std::vector<int> wait(std::chrono::seconds limit = std::chrono::seconds(240));
  // What a process wrote to stderr.
  std::string told(int rank) const;
  // What all did.
  std::string all_told() const;

 private:
  void start(int rank, int size, const std::vector<std::string>& words);
  std::filesystem::path log(int rank) const { return logs_ / std::to_string(rank); }

  TemporaryFolder logs_;
  int port_;
  std::vector<pid_t> processes_;  // 0: has ended
};

}  // namespace qat::testing
