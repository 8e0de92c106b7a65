// What is wrong with the tensors of a folder: collected, so that one error lists all of it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "io/tensor_source.h"
#include "quant/scheme.h"

namespace qat {

class TensorFaults {
 public:
  template <class... Parts>
  void add(const Parts&... parts) {
    if (++count_ <= kListed) list_ += "\n  " + join(parts...);
  }

  // Throws Error if there are any: "folder: 3 faults in the tensors of this mobile model: ...".
  void throw_if_any(const std::string& folder, const char* model) const {
    if (count_ == 0) return;
    fail(folder, ": ", count_, " faults in the tensors of this ", model, " model:", list_,
         count_ > kListed ? "\n  and more" : "");
  }

 private:
  static constexpr int kListed = 20;

  std::string list_;
  int count_ = 0;
};

// "BF16 [64, 32]".
std::string describe(ElementType type, const std::vector<int64_t>& shape);
// "is missing" (null), "is BF16 [64, 32]".
std::string describe(const TensorView* tensor);

// The scheme of numbers that are stored as they are; nothing for other types.
std::optional<Scheme> float_scheme(ElementType type);

}  // namespace qat
