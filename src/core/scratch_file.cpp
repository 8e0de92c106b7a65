#include "core/scratch_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "core/error.h"

namespace qat {

ScratchFile::ScratchFile(const std::filesystem::path& folder, size_t size) : size_(size) {
  std::string name = (folder / ".scratch-XXXXXX").string();
  const int descriptor = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor < 0) fail(folder.string(), ": no scratch file can be made here: ", std::strerror(errno));
  ::unlink(name.c_str());
  if (size_ == 0) {
    ::close(descriptor);
    return;
  }
  // Without its blocks a mapped file would end the process where the disk turns out to be full.
  int error = ::posix_fallocate(descriptor, 0, static_cast<off_t>(size_));
  if (error == 0) {
    void* data = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    error = data == MAP_FAILED ? errno : 0;
    if (error == 0) data_ = static_cast<std::byte*>(data);
  }
  ::close(descriptor);
  if (error != 0) {
    fail(folder.string(), ": a scratch file of ", size_, " bytes cannot be made here: ", std::strerror(error));
  }
}

ScratchFile::~ScratchFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace qat
