#include "io/gguf_value.h"

#include <array>
#include <limits>
#include <optional>
#include <type_traits>

#include "core/error.h"

namespace qat {

namespace {

static_assert(std::variant_size_v<GgufValue> == kGgufTypes && std::variant_size_v<GgufArray> == kGgufTypes);
constexpr std::array<std::string_view, kGgufTypes> kTypeNames{"u8",   "i8",   "u16",   "i16", "u32", "i32", "f32",
                                                              "bool", "text", "array", "u64", "i64", "f64"};

std::optional<int64_t> as_integer(const GgufValue& value) {
  return std::visit(
      [](const auto& scalar) -> std::optional<int64_t> {
        using Scalar = std::decay_t<decltype(scalar)>;
        if constexpr (std::is_integral_v<Scalar> && !std::is_same_v<Scalar, bool>) {
          if (std::is_same_v<Scalar, uint64_t> && static_cast<uint64_t>(scalar) > INT64_MAX) return std::nullopt;
          return static_cast<int64_t>(scalar);
        } else {
          return std::nullopt;
        }
      },
      value);
}

std::optional<std::vector<int64_t>> as_integers(const GgufArray& array) {
  return std::visit(
      [](const auto& list) -> std::optional<std::vector<int64_t>> {
        if constexpr (std::is_same_v<std::decay_t<decltype(list)>, std::monostate>) {
          return std::nullopt;
        } else if constexpr (std::is_integral_v<typename std::decay_t<decltype(list)>::value_type>) {
          std::vector<int64_t> result;
          result.reserve(list.size());
          for (const auto element : list) result.push_back(static_cast<int64_t>(element));
          return result;
        } else {
          return std::nullopt;
        }
      },
      array);
}

}  // namespace

std::string_view gguf_type_name(GgufType type) { return kTypeNames[static_cast<size_t>(type)]; }

void GgufMetadata::add(std::string key, GgufValue value) {
  if (key.empty()) fail(where_, ": metadata has an empty key");
  if (!positions_.emplace(key, entries_.size()).second) fail(where_, ": metadata key \"", key, "\" comes twice");
  entries_.emplace_back(std::move(key), std::move(value));
}

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto found = positions_.find(std::string(key));
  return found == positions_.end() ? nullptr : &entries_[found->second].second;
}

const GgufValue& GgufMetadata::require(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) fail(where_, ": metadata \"", key, "\" is missing");
  return *value;
}

void GgufMetadata::fail_type(std::string_view key, const GgufValue& found, std::string_view wanted) const {
  const auto* array = std::get_if<GgufArray>(&found);
  fail(where_, ": metadata \"", key, "\" is ",
       array != nullptr ? "an array of " + std::string(gguf_type_name(gguf_type(*array)))
                        : "of type " + std::string(gguf_type_name(gguf_type(found))),
       ", wanted is ", wanted);
}

const std::string& GgufMetadata::text(std::string_view key) const {
  const GgufValue& value = require(key);
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  fail_type(key, value, "text");
}

bool GgufMetadata::boolean(std::string_view key) const {
  const GgufValue& value = require(key);
  if (const auto* boolean = std::get_if<bool>(&value)) return *boolean;
  fail_type(key, value, "a bool");
}

int64_t GgufMetadata::integer(std::string_view key) const {
  const GgufValue& value = require(key);
  if (const auto integer = as_integer(value)) return *integer;
  fail_type(key, value, "an integer below 2^63");
}

double GgufMetadata::number(std::string_view key) const {
  const GgufValue& value = require(key);
  if (const auto* number = std::get_if<float>(&value)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<double>(&value)) return *number;
  fail_type(key, value, "a floating-point number");
}

const std::vector<std::string>& GgufMetadata::texts(std::string_view key) const {
  const GgufValue& value = require(key);
  if (const auto* array = std::get_if<GgufArray>(&value)) {
    if (const auto* texts = std::get_if<std::vector<std::string>>(array)) return *texts;
  }
  fail_type(key, value, "an array of text");
}

const std::vector<float>& GgufMetadata::floats(std::string_view key) const {
  const GgufValue& value = require(key);
  if (const auto* array = std::get_if<GgufArray>(&value)) {
    if (const auto* floats = std::get_if<std::vector<float>>(array)) return *floats;
  }
  fail_type(key, value, "an array of f32");
}

std::vector<int64_t> GgufMetadata::integers(std::string_view key) const {
  const GgufValue& value = require(key);
  if (const auto* array = std::get_if<GgufArray>(&value)) {
    if (auto integers = as_integers(*array)) return std::move(*integers);
  }
  fail_type(key, value, "an array of integers or bools");
}

std::vector<int64_t> GgufMetadata::integers_per_layer(std::string_view key, int64_t layers) const {
  const GgufValue& value = require(key);
  if (const auto* boolean = std::get_if<bool>(&value))
    return std::vector<int64_t>(static_cast<size_t>(layers), *boolean);
  if (const auto integer = as_integer(value)) return std::vector<int64_t>(static_cast<size_t>(layers), *integer);
  auto result = integers(key);
  if (static_cast<int64_t>(result.size()) != layers) {
    fail(where_, ": metadata \"", key, "\" has ", result.size(), " entries for ", layers, " layers");
  }
  return result;
}

}  // namespace qat
