// TFRecord, TensorFlow's framing of a sequence of messages (tensorflow/core/lib/io/record_writer.h):
//   u64 length, u32 masked CRC-32C of the length, the message, u32 masked CRC-32C of the message; little-endian
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace qat {

// Castagnoli's polynomial, as in RFC 3720.
uint32_t crc32c(std::string_view bytes);

// One record with this message.
std::string make_tfrecord(std::string_view message);

// The first record's message, which is taken off the front of `bytes`; nothing, and `bytes` as they were, if no whole
// record with right checksums stands there.
std::optional<std::string_view> take_tfrecord(std::string_view& bytes);

}  // namespace qat
