// Files and folders that appear under their final name only when they are complete.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace qat {

// Writes to a temporary name beside `path`; commit() syncs and renames. Without commit() nothing remains.
// Every failed write (disk full, read-only folder) throws Error with the path and the system's reason.
class OutputFile {
 public:
  explicit OutputFile(const std::filesystem::path& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
  // Writes at a fixed offset without moving the end of sequential writing.
  void write_at(uint64_t offset, std::span<const std::byte> bytes);
  // Appends zero bytes until the size is a multiple of `alignment`.
  void pad_to(uint64_t alignment);
  uint64_t size() const { return size_; }

  // Syncs, closes and renames to the final name, replacing a file of that name.
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

// Writes a small file in one go, by the same temporary-then-rename rule.
void write_file(const std::filesystem::path& path, std::string_view content);

// A folder that is filled under a temporary name beside `path`. commit() moves it into place; a folder that stood
// there is moved away first and removed last, so a crash at any moment leaves a complete folder under one of the names
// and recover_output_folder() puts it back. Without commit() the temporary folder is removed.
class OutputFolder {
 public:
  explicit OutputFolder(const std::filesystem::path& path);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  // Where to write files before commit().
  const std::filesystem::path& working_path() const { return temporary_; }
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  bool committed_ = false;
};

// Finishes an OutputFolder::commit() to `path` that was cut off, and removes leftovers. Harmless otherwise.
void recover_output_folder(const std::filesystem::path& path);

}  // namespace qat
