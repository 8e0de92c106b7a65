// Named tensors in mapped files, whatever the container.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qat {

// Element types of plain (not quantized) tensors.
enum class ElementType { F32, F16, BF16, F64, I8, U8, I16, I32, I64, Bool };

int64_t element_bytes(ElementType type);
// The name that safetensors gives it: "BF16".
std::string_view element_name(ElementType type);

// "[2, 32]", for messages.
std::string shape_text(std::span<const int64_t> shape);

// A tensor in a mapped file: row-major, slowest dimension first. `bytes` stays valid as long as its source.
struct TensorView {
  std::string name;
  ElementType type;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;

  int64_t elements() const { return static_cast<int64_t>(bytes.size()) / element_bytes(type); }
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  // Every tensor, sorted by name.
  virtual const std::vector<TensorView>& tensors() const = 0;
  // The tensor of this name, or null.
  virtual const TensorView* find(std::string_view name) const = 0;
  // Where the tensors come from, for messages.
  virtual std::string where() const = 0;
  // Says that these bytes will not be needed again soon (bounds resident memory while streaming).
  virtual void release(std::span<const std::byte> bytes) const = 0;
};

}  // namespace qat
