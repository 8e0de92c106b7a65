// A typed metadata value of a GGUF file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace qat {

// The type ids of the format (ggml/include/gguf.h of llama.cpp); both variants below are indexed by them.
enum class GgufType : uint32_t { U8, I8, U16, I16, U32, I32, F32, Bool, Text, Array, U64, I64, F64 };
inline constexpr uint32_t kGgufTypes = 13;

// "u32", "text", …
std::string_view gguf_type_name(GgufType type);

// The format has no arrays of arrays: their place in the variant is empty.
using GgufArray = std::variant<std::vector<uint8_t>, std::vector<int8_t>, std::vector<uint16_t>, std::vector<int16_t>,
                               std::vector<uint32_t>, std::vector<int32_t>, std::vector<float>, std::vector<bool>,
                               std::vector<std::string>, std::monostate, std::vector<uint64_t>, std::vector<int64_t>,
                               std::vector<double>>;

using GgufValue = std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool, std::string,
                               GgufArray, uint64_t, int64_t, double>;

inline GgufType gguf_type(const GgufValue& value) { return static_cast<GgufType>(value.index()); }
inline GgufType gguf_type(const GgufArray& array) { return static_cast<GgufType>(array.index()); }

// Key-value pairs in file order. The getters throw Error naming the file, the key, and what was found and wanted.
class GgufMetadata {
 public:
  explicit GgufMetadata(std::string where = "") : where_(std::move(where)) {}

  // Throws Error for an empty key or one that is there already.
  void add(std::string key, GgufValue value);

  const std::vector<std::pair<std::string, GgufValue>>& entries() const { return entries_; }
  // Null if there is no such key.
  const GgufValue* find(std::string_view key) const;
  bool contains(std::string_view key) const { return find(key) != nullptr; }

  const std::string& text(std::string_view key) const;
  bool boolean(std::string_view key) const;
  // Any integer type.
  int64_t integer(std::string_view key) const;
  // Any floating-point type.
  double number(std::string_view key) const;
  const std::vector<std::string>& texts(std::string_view key) const;
  const std::vector<float>& floats(std::string_view key) const;
  // An array of any integer type or of bool.
  std::vector<int64_t> integers(std::string_view key) const;
  // A fact of every layer: one value for all of them, or an array with exactly one per layer (integers or bool).
  std::vector<int64_t> integers_per_layer(std::string_view key, int64_t layers) const;

 private:
  const GgufValue& require(std::string_view key) const;
  [[noreturn]] void fail_type(std::string_view key, const GgufValue& found, std::string_view wanted) const;

  std::string where_;
  std::vector<std::pair<std::string, GgufValue>> entries_;
  std::unordered_map<std::string, size_t> positions_;  // of a key in entries_
};

}  // namespace qat
