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

constexpr uint64_t kMaxTextBytes = uint64_t{1} << 30;

}  // namespace

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

  Handle open(std::string_view name) const {
    if (!has(name)) fail(path.string(), ": has no ", name, ": written by another program or version, or damaged");
    Handle dataset(H5Dopen2(id.get(), std::string(name).c_str(), H5P_DEFAULT), H5Dclose);
    if (!dataset.valid()) damaged(name);
    return dataset;
  }

  Handle open(std::string_view name, hid_t type, const char* type_name) const {
    Handle dataset = open(name);
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

uint64_t Hdf5Reader::elements(std::string_view name) const { return file_->elements(file_->open(name), name); }

void Hdf5Reader::read_part(std::string_view name, ElementType type, uint64_t first, std::span<std::byte> bytes) const {
  const PartType part = part_type(type);
  const Handle dataset = file_->open(name, part.id, part.name);
  const uint64_t elements = file_->elements(dataset, name);
  QAT_CHECK(bytes.size() % part.bytes == 0);
  const hsize_t count = bytes.size() / part.bytes;
  if (first > elements || count > elements - first) {
    fail(file_->path.string(), ": ", name, ": ", elements, " elements, wanted ", count, " from element ", first, " on");
  }
  if (count == 0) return;
  const Handle memory = make_space(count);
  const Handle place = make_selection(elements, first, count);
  if (H5Dread(dataset.get(), part.id, memory.get(), place.get(), H5P_DEFAULT, bytes.data()) < 0) file_->damaged(name);
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
