#include "reference/device_weights.h"

#include <cstring>

#include "core/error.h"
#include "core/float_types.h"
#include "quant/grid.h"
#include "reference/device_activations.h"

namespace qat {

namespace {

constexpr int64_t kHalf = grid::kBlock / 2;

// The 32 signed codes of a block, in quad order.
void unpack_q4_0(const uint8_t* bytes, int16_t* codes) {
  for (int64_t i = 0; i < kHalf; ++i) {
    codes[code_place(CodeOrder::Quads, i)] = static_cast<int16_t>((bytes[i] & 15) - 8);
    codes[code_place(CodeOrder::Quads, i + kHalf)] = static_cast<int16_t>((bytes[i] >> 4) - 8);
  }
}
void unpack_q8_0(const uint8_t* bytes, int16_t* codes) {
  for (int64_t quad = 0; quad < 8; ++quad) {
    codes[2 * quad] = static_cast<int8_t>(bytes[4 * quad]);
    codes[2 * quad + 1] = static_cast<int8_t>(bytes[4 * quad + 1]);
    codes[2 * quad + 16] = static_cast<int8_t>(bytes[4 * quad + 2]);
    codes[2 * quad + 17] = static_cast<int8_t>(bytes[4 * quad + 3]);
  }
}

float fp16_at(const uint8_t* bytes) {
  Float16 value;
  std::memcpy(&value, bytes, sizeof(value));
  return to_float(value);
}

const uint8_t* bytes_of(const WeightView& weight, int64_t row) {
  return reinterpret_cast<const uint8_t*>(weight.row_blocks(row).data());
}

}  // namespace

void unpack_interleaved(const WeightView& weight, int64_t first_row, InterleavedTile& tile) {
  QAT_CHECK(weight.scheme->id == Scheme::Q4_0);
  tile.blocks = weight.columns() / grid::kBlock;
  tile.codes.resize(static_cast<size_t>(tile.blocks * grid::kBlock * kInterleavedRows));
  tile.scales.resize(static_cast<size_t>(tile.blocks * kInterleavedRows));
  for (int64_t row = 0; row < kInterleavedRows; ++row) {
    const uint8_t* block = bytes_of(weight, first_row + row);
    for (int64_t b = 0; b < tile.blocks; ++b, block += weight.scheme->block_bytes) {
      tile.scales[static_cast<size_t>(b * kInterleavedRows + row)] = fp16_at(block);
      int16_t* target = tile.codes.data() + b * grid::kBlock * kInterleavedRows + row * 2;
      for (int64_t i = 0; i < kHalf; i += 2) {
        constexpr int64_t kSecondHalf = kHalf * kInterleavedRows;
        const int first = block[2 + i];
        const int second = block[3 + i];
        int16_t* pair = target + i * kInterleavedRows;
        pair[0] = static_cast<int16_t>((first & 15) - 8);
        pair[1] = static_cast<int16_t>((second & 15) - 8);
        pair[kSecondHalf] = static_cast<int16_t>((first >> 4) - 8);
        pair[kSecondHalf + 1] = static_cast<int16_t>((second >> 4) - 8);
      }
    }
  }
}

void unpack_codes(const WeightView& weight, int64_t row, CodeRow& unpacked) {
  const bool four_bits = weight.scheme->id == Scheme::Q4_0;
  QAT_CHECK(four_bits || weight.scheme->id == Scheme::Q8_0);
  unpacked.blocks = weight.columns() / grid::kBlock;
  unpacked.codes.resize(static_cast<size_t>(weight.columns()));
  unpacked.scales.resize(static_cast<size_t>(unpacked.blocks));
  const uint8_t* block = bytes_of(weight, row);
  for (int64_t b = 0; b < unpacked.blocks; ++b, block += weight.scheme->block_bytes) {
    unpacked.scales[static_cast<size_t>(b)] = fp16_at(block);
    int16_t* codes = unpacked.codes.data() + b * grid::kBlock;
    four_bits ? unpack_q4_0(block + 2, codes) : unpack_q8_0(block + 2, codes);
  }
}

void unpack_super_blocks(const WeightView& weight, int64_t row, SuperBlockRow& unpacked) {
  QAT_CHECK(weight.scheme->id == Scheme::Q6_K);
  unpacked.blocks = weight.columns() / grid::kSuperBlock;
  unpacked.codes.resize(static_cast<size_t>(weight.columns()));
  unpacked.sub_scales.resize(static_cast<size_t>(weight.columns() / grid::kGroup));
  unpacked.scales.resize(static_cast<size_t>(unpacked.blocks));
  const uint8_t* block = bytes_of(weight, row);
  for (int64_t b = 0; b < unpacked.blocks; ++b, block += weight.scheme->block_bytes) {
    const uint8_t* low = block;
    const uint8_t* high = block + 128;
    for (int64_t i = 0; i < 16; ++i) {
      unpacked.sub_scales[static_cast<size_t>(b * 16 + i)] = static_cast<int8_t>(block[192 + i]);
    }
    unpacked.scales[static_cast<size_t>(b)] = fp16_at(block + 208);
    // Per half of 128: four runs of 32 share the bytes of `high`, two bits each (gguf_q4_0.md 2.1).
    for (int64_t run = 0; run < 8; ++run) {
      int16_t* codes = unpacked.codes.data() + b * grid::kSuperBlock + run * grid::kBlock;
      const int64_t half = run / 4;
      const int64_t quarter = run % 4;
      for (int64_t i = 0; i < grid::kBlock; ++i) {
        const int low_byte = low[half * 64 + quarter % 2 * 32 + i];
        const int bits = (high[half * 32 + i] >> (2 * quarter)) & 3;
        codes[code_place(CodeOrder::Quads, i)] =
            static_cast<int16_t>((quarter < 2 ? low_byte & 15 : low_byte >> 4) | bits << 4);
      }
    }
  }
}

}  // namespace qat
