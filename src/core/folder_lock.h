// Keeps a second process out of a folder.
#pragma once

#include <filesystem>

namespace qat {

// Holds flock(2) on the folder itself for its lifetime: nothing is left behind, also by a killed process.
class FolderLock {
 public:
  // Throws Error if another process holds the folder. File systems without locks are used unlocked.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_;
};

}  // namespace qat
