#include "quant/packing.h"

#include <cstring>

#include "core/error.h"

namespace qat {

namespace {

// What turns two's complement into offset codes, and back: the top bit of every lane.
unsigned offset_mask(Scheme id, CodeBytes form) {
  if (form == CodeBytes::TwosComplement) return 0;
  return id == Scheme::Int4 ? 0x88U : 0xAAU;
}

void check_sizes(const QuantScheme& row, size_t codes, size_t bytes) {
  QAT_CHECK(row.has_row_scales());
  QAT_CHECK(codes == bytes * static_cast<size_t>(row.block_size));
}

template <int kBits>
void pack(std::span<const int8_t> codes, unsigned mask, std::byte* bytes) {
  constexpr size_t kLanes = 8 / kBits;
  constexpr unsigned kLane = (1U << kBits) - 1;
  for (size_t i = 0; i < codes.size(); i += kLanes) {
    unsigned packed = 0;
    for (size_t lane = 0; lane < kLanes; ++lane) {
      packed |= (static_cast<unsigned>(codes[i + lane]) & kLane) << (lane * kBits);
    }
    bytes[i / kLanes] = static_cast<std::byte>(packed ^ mask);
  }
}

template <int kBits>
void unpack(const std::byte* bytes, unsigned mask, std::span<int8_t> codes) {
  constexpr size_t kLanes = 8 / kBits;
  for (size_t i = 0; i < codes.size(); i += kLanes) {
    const unsigned packed = std::to_integer<unsigned>(bytes[i / kLanes]) ^ mask;
    for (size_t lane = 0; lane < kLanes; ++lane) {
      // The lane moves to the top of the byte, so that the shift back extends its sign.
      const auto top = static_cast<int8_t>(static_cast<uint8_t>(packed << (8 - kBits - lane * kBits)));
      codes[i + lane] = static_cast<int8_t>(top >> (8 - kBits));
    }
  }
}

}  // namespace

void pack_codes(Scheme id, CodeBytes form, std::span<const int8_t> codes, std::span<std::byte> bytes) {
  check_sizes(scheme(id), codes.size(), bytes.size());
  if (id == Scheme::Int8) {
    std::memcpy(bytes.data(), codes.data(), codes.size());
  } else if (id == Scheme::Int4) {
    pack<4>(codes, offset_mask(id, form), bytes.data());
  } else {
    pack<2>(codes, offset_mask(id, form), bytes.data());
  }
}

void unpack_codes(Scheme id, CodeBytes form, std::span<const std::byte> bytes, std::span<int8_t> codes) {
  check_sizes(scheme(id), codes.size(), bytes.size());
  if (id == Scheme::Int8) {
    std::memcpy(codes.data(), bytes.data(), bytes.size());
  } else if (id == Scheme::Int4) {
    unpack<4>(bytes.data(), offset_mask(id, form), codes);
  } else {
    unpack<2>(bytes.data(), offset_mask(id, form), codes);
  }
}

}  // namespace qat
