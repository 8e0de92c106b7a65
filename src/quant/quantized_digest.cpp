#include "quant/quantized_digest.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "core/error.h"
#include "quant/q6_k_block.h"
#include "quant/scalar_codec.h"

namespace qat {

namespace {

// Values whose codes are unpacked at a time; a whole number of blocks of every scheme.
constexpr size_t kPiece = 8192;

void unpack_q4_0(const uint8_t* block, int8_t* codes) {
  for (size_t i = 0; i < 16; ++i) {
    codes[i] = static_cast<int8_t>((block[2 + i] & 15) - 8);
    codes[i + 16] = static_cast<int8_t>((block[2 + i] >> 4) - 8);
  }
}

// The stored scale bytes of a block, appended at `scales`; returns how many.
size_t copy_scales(Scheme id, const uint8_t* block, uint8_t* scales) {
  if (id != Scheme::Q6_K) {
    std::memcpy(scales, block, sizeof(Float16));
    return sizeof(Float16);
  }
  BlockQ6_K fields;
  std::memcpy(&fields, block, sizeof(fields));
  std::memcpy(scales, &fields.scale, sizeof(fields.scale));
  std::memcpy(scales + sizeof(fields.scale), fields.sub_scales, sizeof(fields.sub_scales));
  return sizeof(fields.scale) + sizeof(fields.sub_scales);
}

}  // namespace

void unpack_codes(Scheme id, std::span<const std::byte> blocks, std::span<int8_t> codes) {
  const QuantScheme& row = scheme(id);
  const auto block_bytes = static_cast<size_t>(row.block_bytes);
  const auto block_size = static_cast<size_t>(row.block_size);
  QAT_CHECK(row.granularity == Granularity::Block && blocks.size() % block_bytes == 0);
  QAT_CHECK(codes.size() == blocks.size() / block_bytes * block_size);
  const auto* block = reinterpret_cast<const uint8_t*>(blocks.data());
  for (size_t i = 0; i < codes.size(); i += block_size, block += block_bytes) {
    switch (id) {
      case Scheme::Q4_0:
        unpack_q4_0(block, codes.data() + i);
        break;
      case Scheme::Q8_0:
        std::memcpy(codes.data() + i, block + sizeof(Float16), block_size);
        break;
      default: {
        BlockQ6_K fields;
        std::memcpy(&fields, block, sizeof(fields));
        unpack_q6_k_codes(fields, codes.data() + i);
      }
    }
  }
}

void QuantizedDigest::update(std::span<const std::byte> blocks) {
  const QuantScheme& row = scheme(scheme_);
  if (!row.is_quantized()) {
    codes_.update(blocks);
    return;
  }
  const auto block_bytes = static_cast<size_t>(row.block_bytes);
  const auto block_size = static_cast<size_t>(row.block_size);
  QAT_CHECK(blocks.size() % block_bytes == 0);
  std::array<int8_t, kPiece> codes;
  std::array<uint8_t, kPiece / 8> scales;
  while (!blocks.empty()) {
    const size_t count = std::min(blocks.size() / block_bytes, kPiece / block_size);
    const auto piece = blocks.first(count * block_bytes);
    const auto piece_codes = std::span(codes).first(count * block_size);
    unpack_codes(scheme_, piece, piece_codes);
    codes_.update(std::as_bytes(piece_codes));
    size_t scale_bytes = 0;
    for (size_t i = 0; i < count; ++i) {
      const auto* block = reinterpret_cast<const uint8_t*>(piece.data()) + i * block_bytes;
      scale_bytes += copy_scales(scheme_, block, scales.data() + scale_bytes);
    }
    scales_.update(std::as_bytes(std::span(scales).first(scale_bytes)));
    blocks = blocks.subspan(piece.size());
  }
}

QuantizedDigest::Result QuantizedDigest::finish() {
  std::string codes = codes_.finish();
  return {std::move(codes), scheme(scheme_).is_quantized() ? scales_.finish() : std::string()};
}

void RowDigest::update(std::span<const int8_t> codes, std::span<const float> scales) {
  codes_.update(std::as_bytes(codes));
  scales_.update(std::as_bytes(scales));
}

QuantizedDigest::Result RowDigest::finish() {
  std::string codes = codes_.finish();
  return {std::move(codes), scales_.finish()};
}

}  // namespace qat
