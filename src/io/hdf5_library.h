// What reader and writer of HDF5 files share: the library behind RAII, for the sources of io/hdf5.h only.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <string>
#include <utility>

#include "io/tensor_source.h"

namespace qat::hdf5 {

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
void set_up_library();

// The innermost description on HDF5's error stack: the cause ("file read failed: …", "truncated file").
std::string library_reason();

// Plain arrays of one dimension.
Handle make_space(hsize_t elements);

// The elements [first, first + count) of an array.
Handle make_selection(hsize_t elements, hsize_t first, hsize_t count);

// How elements of arrays that are handled in parts are stored: BF16 as the 16-bit integers of their bits.
struct PartType {
  hid_t id;
  uint64_t bytes;
  const char* name;
};
PartType part_type(ElementType type);

}  // namespace qat::hdf5
