#include "core/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

fs::path with_suffix(const fs::path& path, const char* suffix) {
  fs::path result = path;
  if (!result.has_filename()) result = result.parent_path();  // "folder/" names the folder
  result += suffix;
  return result;
}

void sync_folder_of(const fs::path& path) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

void write_all(int descriptor, std::span<const std::byte> bytes, const fs::path& path, const uint64_t* offset) {
  size_t done = 0;
  while (done < bytes.size()) {
    // Linux takes at most 2 GiB in one call.
    const size_t part = std::min<size_t>(bytes.size() - done, size_t{1} << 30);
    const ssize_t written = offset == nullptr
                                ? ::write(descriptor, bytes.data() + done, part)
                                : ::pwrite(descriptor, bytes.data() + done, part, static_cast<off_t>(*offset + done));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail(path.string(), ": cannot be written: ", std::strerror(written < 0 ? errno : ENOSPC));
    done += static_cast<size_t>(written);
  }
}

void rename_or_fail(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) fail(to.string(), ": cannot be renamed from ", from.string(), ": ", error.message());
}

}  // namespace

OutputFile::OutputFile(const fs::path& path)
    : path_(path), temporary_(with_suffix(path, join(".partial-", ::getpid()).c_str())) {
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail(path_.string(), ": cannot be created: ", std::strerror(errno));
}

OutputFile::~OutputFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void OutputFile::write(std::span<const std::byte> bytes) {
  write_all(descriptor_, bytes, path_, nullptr);
  size_ += bytes.size();
}

void OutputFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  write_all(descriptor_, bytes, path_, &offset);
}

void OutputFile::pad_to(uint64_t alignment) {
  static constexpr std::array<std::byte, 4096> kZeros{};
  uint64_t missing = (alignment - size_ % alignment) % alignment;
  while (missing > 0) {
    const uint64_t part = std::min<uint64_t>(missing, kZeros.size());
    write(std::span(kZeros).first(part));
    missing -= part;
  }
}

void OutputFile::commit() {
  if (::fsync(descriptor_) != 0) fail(path_.string(), ": cannot be synced: ", std::strerror(errno));
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    fail(path_.string(), ": cannot be closed: ", std::strerror(error));
  }
  rename_or_fail(temporary_, path_);
  sync_folder_of(path_);
}

void write_file(const fs::path& path, std::string_view content) {
  OutputFile file(path);
  file.write(content);
  file.commit();
}

OutputFolder::OutputFolder(const fs::path& path) : path_(with_suffix(path, "")), temporary_(with_suffix(path, ".partial")) {
  recover_output_folder(path_);
  std::error_code error;
  fs::create_directories(temporary_, error);
  if (error) fail(path_.string(), ": cannot be created: ", error.message());
}

OutputFolder::~OutputFolder() {
  if (committed_) return;
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
}

void OutputFolder::commit() {
  const fs::path previous = with_suffix(path_, ".previous");
  sync_folder_of(temporary_ / "x");
  if (fs::exists(path_)) rename_or_fail(path_, previous);
  rename_or_fail(temporary_, path_);
  committed_ = true;
  sync_folder_of(path_);
  std::error_code ignored;
  fs::remove_all(previous, ignored);
}

void recover_output_folder(const fs::path& path) {
  const fs::path previous = with_suffix(path, ".previous");
  std::error_code ignored;
  if (!fs::exists(path) && fs::exists(previous)) rename_or_fail(previous, path);
  fs::remove_all(previous, ignored);
  fs::remove_all(with_suffix(path, ".partial"), ignored);
}

}  // namespace qat
