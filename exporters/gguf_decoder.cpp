#include "exporters/gguf_decoder.h"

#include <bit>
#include <cmath>

#include "core/error.h"

namespace qat {

namespace {

uint16_t read_u16(std::span<const std::byte> bytes, size_t offset) {
  return static_cast<uint16_t>(std::to_integer<unsigned>(bytes[offset]) | std::to_integer<unsigned>(bytes[offset + 1]) << 8);
}

// IEEE binary16 by its definition, in double, so that it owes nothing to core/float_types.h.
float half_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  const double magnitude = exponent == 0    ? std::ldexp(mantissa, -24)
                           : exponent == 31 ? (mantissa == 0 ? INFINITY : NAN)
                                            : std::ldexp(1024 + mantissa, exponent - 25);
  return static_cast<float>((bits & 0x8000) != 0 ? -magnitude : magnitude);
}

void append_scale(DecodedBlocks& out, std::span<const std::byte> bytes) {
  out.scales.insert(out.scales.end(), bytes.begin(), bytes.end());
}

// fp16 d, 16 bytes: byte j holds element j in its low and element j + 16 in its high nibble, as code + 8.
void decode_q4_0(std::span<const std::byte> block, DecodedBlocks& out) {
  append_scale(out, block.first(2));
  const float scale = half_value(read_u16(block, 0));
  for (size_t i = 0; i < 32; ++i) {
    const auto byte = std::to_integer<int>(block[2 + i % 16]);
    const int code = (i < 16 ? byte & 15 : byte >> 4) - 8;
    out.codes.push_back(static_cast<int8_t>(code));
    out.values.push_back(scale * static_cast<float>(code));
  }
}

// fp16 d, 32 signed bytes.
void decode_q8_0(std::span<const std::byte> block, DecodedBlocks& out) {
  append_scale(out, block.first(2));
  const float scale = half_value(read_u16(block, 0));
  for (size_t i = 0; i < 32; ++i) {
    const auto code = static_cast<int8_t>(std::to_integer<uint8_t>(block[2 + i]));
    out.codes.push_back(code);
    out.values.push_back(scale * static_cast<float>(code));
  }
}

// 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed sub-scales, fp16 d. In each half of 128 values the four
// quarters of 32 take the low nibbles of bytes 0..31 and 32..63, then the high nibbles, and bit pairs 0, 2, 4, 6 of a byte.
void decode_q6_k(std::span<const std::byte> block, DecodedBlocks& out) {
  append_scale(out, block.subspan(208, 2));
  append_scale(out, block.subspan(192, 16));
  const float scale = half_value(read_u16(block, 208));
  for (size_t i = 0; i < 256; ++i) {
    const size_t half = i / 128;
    const size_t quarter = i % 128 / 32;
    const size_t position = i % 32;
    const auto low = std::to_integer<int>(block[half * 64 + (quarter % 2) * 32 + position]);
    const auto high = std::to_integer<int>(block[128 + half * 32 + position]);
    const int code = ((quarter < 2 ? low & 15 : low >> 4) | ((high >> (2 * quarter)) & 3) << 4) - 32;
    const auto sub_scale = static_cast<int8_t>(std::to_integer<uint8_t>(block[192 + i / 16]));
    out.codes.push_back(static_cast<int8_t>(code));
    out.values.push_back(scale * static_cast<float>(sub_scale) * static_cast<float>(code));
  }
}

}  // namespace

DecodedBlocks decode_for_verification(Scheme scheme_id, std::span<const std::byte> blocks) {
  const QuantScheme& row = scheme(scheme_id);
  const auto size = static_cast<size_t>(row.block_bytes);
  QAT_CHECK(blocks.size() % size == 0);
  DecodedBlocks out;
  out.codes.reserve(blocks.size() / size * static_cast<size_t>(row.block_size));
  out.values.reserve(out.codes.capacity());
  for (size_t offset = 0; offset < blocks.size(); offset += size) {
    const auto block = blocks.subspan(offset, size);
    switch (scheme_id) {
      case Scheme::Q4_0: decode_q4_0(block, out); break;
      case Scheme::Q8_0: decode_q8_0(block, out); break;
      case Scheme::Q6_K: decode_q6_k(block, out); break;
      case Scheme::F32: {
        uint32_t bits = read_u16(block, 0) | static_cast<uint32_t>(read_u16(block, 2)) << 16;
        out.values.push_back(std::bit_cast<float>(bits));
        break;
      }
      case Scheme::F16: out.values.push_back(half_value(read_u16(block, 0))); break;
      case Scheme::BF16:
        out.values.push_back(std::bit_cast<float>(static_cast<uint32_t>(read_u16(block, 0)) << 16));
        break;
      case Scheme::Int2:
      case Scheme::Int4:
      case Scheme::Int8:
        QAT_CHECK(false);  // no GGUF file holds them
    }
  }
  return out;
}

}  // namespace qat
