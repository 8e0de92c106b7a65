#include "io/hdf5.h"

#include <fcntl.h>
#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

// 1 Mi elements: large enough for speed, small enough that a checksum covers a bounded part.
constexpr hsize_t kMaxChunkElements = hsize_t{1} << 20;
constexpr uint64_t kMaxTextBytes = uint64_t{1} << 30;

// An HDF5 identifier and the function that closes it.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() { reset(); }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    reset();
    id_ = std::exchange(other.id_, H5I_INVALID_HID);
    close_ = other.close_;
    return *this;
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  hid_t get() const { return id_; }
  bool valid() const { return id_ >= 0; }
  // False if closing failed (a late write error).
  bool reset() {
    const hid_t id = std::exchange(id_, H5I_INVALID_HID);
    return id < 0 || close_(id) >= 0;
  }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

// HDF5 prints its error stack to stderr unless told otherwise; ours go into Error. Its clean-up at exit crashes where a
// full disk kept a file from being closed (1.10), and we close what we open.
void set_up_library() {
  static const bool once = [] {
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    return true;
  }();
  static_cast<void>(once);
}

// The innermost description on HDF5's error stack: the cause ("file read failed: …", "truncated file").
std::string library_reason() {
  std::string reason;
  const auto take_first = [](unsigned, const H5E_error2_t* entry, void* result) -> herr_t {
    auto& text = *static_cast<std::string*>(result);
    if (text.empty() && entry->desc != nullptr) text = entry->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, &reason);
  H5Eclear2(H5E_DEFAULT);
  return reason.empty() ? "HDF5 gives no reason" : reason;
}

// Plain arrays of one dimension.
Handle make_space(hsize_t elements) { return {H5Screate_simple(1, &elements, nullptr), H5Sclose}; }

}  // namespace

struct Hdf5Writer::File {
  fs::path path;
  fs::path temporary;
  Handle id{H5I_INVALID_HID, H5Fclose};
  Handle link_options{H5I_INVALID_HID, H5Pclose};
  bool committed = false;

  [[noreturn]] void failed(std::string_view name) const {
    const std::string reason = library_reason();
    fail(path.string(), ": ", name, name.empty() ? "" : ": ", "cannot be written: ", reason);
  }

  void write(std::string_view name, hid_t type, const void* values, hsize_t elements) {
    // Times would make two equal files differ; HDF5 knows no chunk of zero elements.
    Handle options(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_obj_track_times(options.get(), false);
    if (elements > 0) {
      // Equal parts: the last chunk takes the room of a whole one.
      const hsize_t parts = (elements + kMaxChunkElements - 1) / kMaxChunkElements;
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

void Hdf5Writer::commit() {
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

struct Hdf5Reader::File {
  fs::path path;
  Handle id{H5I_INVALID_HID, H5Fclose};

  // A path whose groups all exist; H5Lexists reports only the last part.
  bool has(std::string_view name) const {
    for (size_t slash = name.find('/');; slash = name.find('/', slash + 1)) {
      const std::string part(name.substr(0, slash));
      if (H5Lexists(id.get(), part.c_str(), H5P_DEFAULT) <= 0) return false;
      if (slash == std::string_view::npos) return true;
    }
  }

  Handle open(std::string_view name, hid_t type, const char* type_name) const {
    if (!has(name)) fail(path.string(), ": has no ", name, ": written by another program or version, or damaged");
    Handle dataset(H5Dopen2(id.get(), std::string(name).c_str(), H5P_DEFAULT), H5Dclose);
    if (!dataset.valid()) damaged(name);
    const Handle found(H5Dget_type(dataset.get()), H5Tclose);
    if (!found.valid() || H5Tequal(found.get(), type) <= 0)
      fail(path.string(), ": ", name, ": is no array of ", type_name);
    return dataset;
  }

  uint64_t elements(const Handle& dataset, std::string_view name) const {
    const Handle space(H5Dget_space(dataset.get()), H5Sclose);
    const hssize_t count = space.valid() ? H5Sget_simple_extent_npoints(space.get()) : -1;
    if (count < 0) damaged(name);
    return static_cast<uint64_t>(count);
  }

  template <class T>
  void read(std::string_view name, std::span<T> values, hid_t type, const char* type_name) const {
    const Handle dataset = open(name, type, type_name);
    const uint64_t count = elements(dataset, name);
    if (count != values.size()) {
      fail(path.string(), ": ", name, ": ", count, " elements, wanted ", values.size());
    }
    read_all(dataset, type, values.data(), count, name);
  }

  void read_all(const Handle& dataset, hid_t type, void* values, uint64_t count, std::string_view name) const {
    if (count > 0 && H5Dread(dataset.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0) damaged(name);
  }

  [[noreturn]] void damaged(std::string_view name) const {
    const std::string reason = library_reason();
    fail(path.string(), ": ", name, ": cannot be read, the file is damaged: ", reason);
  }
};

Hdf5Reader::Hdf5Reader(const fs::path& path) : file_(std::make_unique<File>()) {
  set_up_library();
  file_->path = path;
  if (!fs::is_regular_file(path)) fail(path.string(), ": there is no such file");
  file_->id = Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (!file_->id.valid()) {
    const std::string reason = library_reason();
    fail(path.string(), ": is damaged, truncated or no HDF5 file: ", reason);
  }
}

Hdf5Reader::~Hdf5Reader() = default;

bool Hdf5Reader::has(std::string_view name) const { return file_->has(name); }

void Hdf5Reader::read(std::string_view name, std::span<float> values) const {
  file_->read(name, values, H5T_NATIVE_FLOAT, "32-bit floats");
}
void Hdf5Reader::read(std::string_view name, std::span<int64_t> values) const {
  file_->read(name, values, H5T_NATIVE_INT64, "64-bit integers");
}
void Hdf5Reader::read(std::string_view name, std::span<double> values) const {
  file_->read(name, values, H5T_NATIVE_DOUBLE, "64-bit floats");
}
void Hdf5Reader::read(std::string_view name, std::span<std::byte> values) const {
  file_->read(name, values, H5T_NATIVE_UINT8, "bytes");
}

std::string Hdf5Reader::read_text(std::string_view name) const {
  const Handle dataset = file_->open(name, H5T_NATIVE_UINT8, "text bytes");
  const uint64_t count = file_->elements(dataset, name);
  if (count > kMaxTextBytes) fail(file_->path.string(), ": ", name, ": ", count, " bytes of text cannot be right");
  std::string text(count, '\0');
  file_->read_all(dataset, H5T_NATIVE_UINT8, text.data(), count, name);
  return text;
}

std::vector<std::string> Hdf5Reader::names_in(std::string_view group) const {
  std::vector<std::string> names;
  if (!file_->has(group)) return names;
  const Handle id(H5Gopen2(file_->id.get(), std::string(group).c_str(), H5P_DEFAULT), H5Gclose);
  if (!id.valid()) file_->damaged(group);
  const auto take = [](hid_t, const char* name, const H5L_info_t*, void* result) -> herr_t {
    static_cast<std::vector<std::string>*>(result)->emplace_back(name);
    return 0;
  };
  if (H5Literate(id.get(), H5_INDEX_NAME, H5_ITER_INC, nullptr, take, &names) < 0) file_->damaged(group);
  return names;
}

}  // namespace qat
