#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "io/hdf5.h"
#include "io/hdf5_library.h"

namespace qat {
namespace fs = std::filesystem;
using hdf5::Handle;
using hdf5::library_reason;
using hdf5::make_selection;
using hdf5::make_space;
using hdf5::part_type;
using hdf5::PartType;
using hdf5::set_up_library;

namespace {

// 1 Mi elements: large enough for speed, small enough that a checksum covers a bounded part.
constexpr hsize_t kMaxChunkElements = hsize_t{1} << 20;
// Arrays that are read in parts have smaller ones: a checksum is of a whole chunk, so a part costs at least one.
constexpr hsize_t kMaxPartChunkElements = hsize_t{1} << 17;

}  // namespace

struct Hdf5Writer::File {
  fs::path path;
  fs::path temporary;
  Handle id{H5I_INVALID_HID, H5Fclose};
  Handle link_options{H5I_INVALID_HID, H5Pclose};
  bool committed = false;
  struct Declared {
    std::string name;
    Handle dataset{H5I_INVALID_HID, H5Dclose};
    PartType type{};
    uint64_t elements = 0;
  };
  Declared declared;  // the array declared last

  [[noreturn]] void failed(std::string_view name) const {
    const std::string reason = library_reason();
    fail(path.string(), ": ", name, name.empty() ? "" : ": ", "cannot be written: ", reason);
  }

  Handle create(std::string_view name, hid_t type, hsize_t elements, hsize_t max_chunk_elements) {
    // Times would make two equal files differ; HDF5 knows no chunk of zero elements.
    Handle options(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_obj_track_times(options.get(), false);
    if (elements > 0) {
      // Equal parts: the last chunk takes the room of a whole one.
      const hsize_t parts = (elements + max_chunk_elements - 1) / max_chunk_elements;
      const hsize_t chunk = (elements + parts - 1) / parts;
      H5Pset_chunk(options.get(), 1, &chunk);
      H5Pset_fletcher32(options.get());
    }
    const Handle space = make_space(elements);
    const std::string text(name);
    Handle dataset(
        H5Dcreate2(id.get(), text.c_str(), type, space.get(), link_options.get(), options.get(), H5P_DEFAULT),
        H5Dclose);
    if (!dataset.valid()) failed(name);
    return dataset;
  }

  void write(std::string_view name, hid_t type, const void* values, hsize_t elements) {
    Handle dataset = create(name, type, elements, kMaxChunkElements);
    if (elements > 0 && H5Dwrite(dataset.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0) failed(name);
    if (!dataset.reset()) failed(name);
  }
};

Hdf5Writer::Hdf5Writer(const fs::path& path) : file_(std::make_unique<File>()) {
  set_up_library();
  file_->path = path;
  file_->temporary = path;
  file_->temporary += join(".partial-", ::getpid());
  Handle options(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  H5Pset_obj_track_times(options.get(), false);
  errno = 0;
  file_->id = Handle(H5Fcreate(file_->temporary.c_str(), H5F_ACC_TRUNC, options.get(), H5P_DEFAULT), H5Fclose);
  if (!file_->id.valid()) {
    // HDF5's own message repeats its whole call; the system's reason says enough.
    const int system_error = errno;
    H5Eclear2(H5E_DEFAULT);
    fail(path.string(), ": cannot be created: ", std::strerror(system_error));
  }
  file_->link_options = Handle(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(file_->link_options.get(), 1);
}

Hdf5Writer::~Hdf5Writer() {
  if (file_->committed) return;
  file_->declared.dataset.reset();
  file_->id.reset();
  std::error_code ignored;
  fs::remove(file_->temporary, ignored);
}

void Hdf5Writer::write(std::string_view name, std::span<const float> values) {
  file_->write(name, H5T_NATIVE_FLOAT, values.data(), values.size());
}
void Hdf5Writer::write(std::string_view name, std::span<const int64_t> values) {
  file_->write(name, H5T_NATIVE_INT64, values.data(), values.size());
}
void Hdf5Writer::write(std::string_view name, std::span<const double> values) {
  file_->write(name, H5T_NATIVE_DOUBLE, values.data(), values.size());
}
void Hdf5Writer::write(std::string_view name, std::span<const std::byte> values) {
  file_->write(name, H5T_NATIVE_UINT8, values.data(), values.size());
}
void Hdf5Writer::write_text(std::string_view name, std::string_view text) {
  file_->write(name, H5T_NATIVE_UINT8, text.data(), text.size());
}

void Hdf5Writer::declare(std::string_view name, ElementType type, uint64_t elements) {
  const PartType part = part_type(type);
  if (!file_->declared.dataset.reset()) file_->failed(file_->declared.name);
  file_->declared = {std::string(name), file_->create(name, part.id, elements, kMaxPartChunkElements), part, elements};
}

void Hdf5Writer::write_part(uint64_t first, std::span<const std::byte> bytes) {
  const File::Declared& declared = file_->declared;
  QAT_CHECK(declared.dataset.valid() && bytes.size() % declared.type.bytes == 0);
  const hsize_t count = bytes.size() / declared.type.bytes;
  QAT_CHECK(first <= declared.elements && count <= declared.elements - first);
  if (count == 0) return;
  const Handle memory = make_space(count);
  const Handle place = make_selection(declared.elements, first, count);
  if (H5Dwrite(declared.dataset.get(), declared.type.id, memory.get(), place.get(), H5P_DEFAULT, bytes.data()) < 0) {
    file_->failed(declared.name);
  }
}

void Hdf5Writer::commit() {
  if (!file_->declared.dataset.reset()) file_->failed(file_->declared.name);
  if (!file_->id.reset()) file_->failed("");
  const int descriptor = ::open(file_->temporary.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = descriptor >= 0 && ::fsync(descriptor) == 0;
  const int error = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (!synced) fail(file_->path.string(), ": cannot be synced: ", std::strerror(error));
  std::error_code renamed;
  fs::rename(file_->temporary, file_->path, renamed);
  if (renamed) fail(file_->path.string(), ": cannot be renamed: ", renamed.message());
  file_->committed = true;
}

}  // namespace qat
