#include "exporters/master_value.h"

#include <cstring>

#include "core/error.h"
#include "core/float_types.h"

namespace qat {

float master_value(const TensorView& tensor, int64_t index) {
  const std::byte* data = tensor.bytes.data();
  switch (tensor.type) {
    case ElementType::BF16: {
      BFloat16 value{};
      std::memcpy(&value, data + index * 2, 2);
      return to_float(value);
    }
    case ElementType::F16: {
      Float16 value{};
      std::memcpy(&value, data + index * 2, 2);
      return to_float(value);
    }
    default: {
      QAT_CHECK(tensor.type == ElementType::F32);
      float value = 0;
      std::memcpy(&value, data + index * 4, 4);
      return value;
    }
  }
}

}  // namespace qat
