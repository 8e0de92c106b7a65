// Memory that the system can move to disk: a file without a name, mapped for reading and writing.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace qat {

// The file disappears with the object, or with the process however that ends. Throws Error, naming the folder, if the
// folder cannot be written to or its disk has too little space; the space is taken at once.
class ScratchFile {
 public:
  ScratchFile(const std::filesystem::path& folder, size_t size);
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  std::span<std::byte> bytes() const { return {data_, size_}; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace qat
