#include "io/hdf5_library.h"

#include "core/error.h"

namespace qat::hdf5 {

void set_up_library() {
  static const bool once = [] {
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    return true;
  }();
  static_cast<void>(once);
}

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

Handle make_space(hsize_t elements) { return {H5Screate_simple(1, &elements, nullptr), H5Sclose}; }

Handle make_selection(hsize_t elements, hsize_t first, hsize_t count) {
  Handle space = make_space(elements);
  H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &first, nullptr, &count, nullptr);
  return space;
}

PartType part_type(ElementType type) {
  if (type == ElementType::F32) return {H5T_NATIVE_FLOAT, 4, "32-bit floats"};
  QAT_CHECK(type == ElementType::BF16);
  return {H5T_NATIVE_UINT16, 2, "16-bit integers (BF16)"};
}

}  // namespace qat::hdf5
