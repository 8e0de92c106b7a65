// GGUF files made byte by byte, apart from the writer under test, and with any field wrong.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "support/temporary_folder.h"

namespace qat::test {

// A file in a folder of its own, both gone with the object.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& name) : path_(folder_ / name) {}

  const std::filesystem::path& path() const { return path_; }
  void fill(const std::string& bytes) const { std::ofstream(path_, std::ios::binary) << bytes; }

 private:
  qat::testing::TemporaryFolder folder_;
  std::filesystem::path path_;
};

class GgufBytes {
 public:
  template <class T>
  GgufBytes& number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  GgufBytes& text(const std::string& value) {
    number<uint64_t>(value.size());
    bytes_ += value;
    return *this;
  }
  GgufBytes& raw(const std::string& value) {
    bytes_ += value;
    return *this;
  }
  GgufBytes& header(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
    return raw("GGUF").number<uint32_t>(version).number<uint64_t>(tensors).number<uint64_t>(keys);
  }
  // A tensor of one dimension.
  GgufBytes& tensor(const std::string& name, int64_t size, uint32_t type, uint64_t offset) {
    return text(name).number<uint32_t>(1).number<int64_t>(size).number<uint32_t>(type).number<uint64_t>(offset);
  }
  GgufBytes& pad(size_t alignment = 32) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment, '\0');
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

}  // namespace qat::test
