// Writes Protocol Buffers messages (wire format: protobuf.dev/programming-guides/encoding) field by field.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace qat {

class ProtobufMessage {
 public:
  // int32, int64, bool and enum fields.
  ProtobufMessage& integer(uint32_t field, int64_t value) {
    variable_length(uint64_t{field} << 3 | 0);
    variable_length(static_cast<uint64_t>(value));
    return *this;
  }
  // float and double fields, by the type of the value.
  ProtobufMessage& number(uint32_t field, float value) {
    variable_length(uint64_t{field} << 3 | 5);
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) bytes_.push_back(static_cast<char>(bits >> shift & 0xFF));
    return *this;
  }
  ProtobufMessage& number(uint32_t field, double value) {
    variable_length(uint64_t{field} << 3 | 1);
    const auto bits = std::bit_cast<uint64_t>(value);
    for (int shift = 0; shift < 64; shift += 8) bytes_.push_back(static_cast<char>(bits >> shift & 0xFF));
    return *this;
  }
  ProtobufMessage& text(uint32_t field, std::string_view value) {
    variable_length(uint64_t{field} << 3 | 2);
    variable_length(value.size());
    bytes_ += value;
    return *this;
  }
  ProtobufMessage& message(uint32_t field, const ProtobufMessage& value) { return text(field, value.bytes_); }

  const std::string& bytes() const { return bytes_; }

 private:
  void variable_length(uint64_t value) {
    for (; value > 0x7F; value >>= 7) bytes_.push_back(static_cast<char>((value & 0x7F) | 0x80));
    bytes_.push_back(static_cast<char>(value));
  }

  std::string bytes_;
};

}  // namespace qat
