#include "io/tfrecord.h"

#include <array>
#include <bit>
#include <cstring>

namespace qat {

namespace {

static_assert(std::endian::native == std::endian::little);

constexpr size_t kLengthBytes = 8;
constexpr size_t kChecksumBytes = 4;
constexpr size_t kHeaderBytes = kLengthBytes + kChecksumBytes;

// Entry i is the remainder of byte i, bits reflected.
constexpr std::array<uint32_t, 256> make_table() {
  constexpr uint32_t kPolynomial = 0x82F63B78;
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t remainder = byte;
    for (int bit = 0; bit < 8; ++bit) remainder = remainder >> 1 ^ ((remainder & 1) != 0 ? kPolynomial : 0);
    table[byte] = remainder;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kTable = make_table();

// A checksum of data that hold checksums themselves is weak; TFRecord therefore stores them rotated and shifted.
uint32_t masked(uint32_t checksum) { return std::rotr(checksum, 15) + 0xA282EAD8; }

template <class T>
void append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

bool checksum_fits(std::string_view bytes, std::string_view stored) {
  uint32_t checksum;
  std::memcpy(&checksum, stored.data(), sizeof(checksum));
  return checksum == masked(crc32c(bytes));
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t checksum = ~uint32_t{0};
  for (const char byte : bytes) checksum = checksum >> 8 ^ kTable[(checksum ^ static_cast<uint8_t>(byte)) & 0xFF];
  return ~checksum;
}

std::string make_tfrecord(std::string_view message) {
  std::string record;
  append(record, uint64_t{message.size()});
  append(record, masked(crc32c(record)));
  record += message;
  append(record, masked(crc32c(message)));
  return record;
}

std::optional<std::string_view> take_tfrecord(std::string_view& bytes) {
  if (bytes.size() < kHeaderBytes + kChecksumBytes) return std::nullopt;
  if (!checksum_fits(bytes.substr(0, kLengthBytes), bytes.substr(kLengthBytes))) return std::nullopt;
  uint64_t length;
  std::memcpy(&length, bytes.data(), sizeof(length));
  if (length > bytes.size() - kHeaderBytes - kChecksumBytes) return std::nullopt;
  const std::string_view message = bytes.substr(kHeaderBytes, length);
  if (!checksum_fits(message, bytes.substr(kHeaderBytes + length))) return std::nullopt;
  bytes.remove_prefix(kHeaderBytes + length + kChecksumBytes);
  return message;
}

}  // namespace qat
