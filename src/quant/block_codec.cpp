#include "quant/block_codec.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/error.h"
#include "quant/block_kernels.h"
#include "quant/grid.h"

namespace qat {

namespace {

// Number of blocks, after checking that all sizes fit together.
size_t count_blocks(const QuantScheme& scheme, size_t values, size_t stored_scales, size_t bytes) {
  const auto block_size = static_cast<size_t>(scheme.block_size);
  const size_t blocks = values / block_size;
  QAT_CHECK(values % block_size == 0);
  QAT_CHECK(bytes == blocks * static_cast<size_t>(scheme.block_bytes));
  QAT_CHECK(stored_scales == 0 || (scheme.allows_stored_scales && stored_scales == blocks));
  return blocks;
}

uint8_t* raw(std::span<std::byte> bytes) { return reinterpret_cast<uint8_t*>(bytes.data()); }
const uint8_t* raw(std::span<const std::byte> bytes) { return reinterpret_cast<const uint8_t*>(bytes.data()); }
const Float16* scales_or_null(std::span<const Float16> scales) { return scales.empty() ? nullptr : scales.data(); }

float widen(float value) { return value; }
float widen(BFloat16 value) { return to_float(value); }

// Element by element; memcpy because a block of bytes need not be aligned.
template <class To, class From, class Convert>
void convert_values(const From* from, size_t count, uint8_t* to, const Convert& convert) {
  for (size_t i = 0; i < count; ++i) {
    const To value = convert(from[i]);
    std::memcpy(to + i * sizeof(To), &value, sizeof(To));
  }
}

// A copy where the types are the same.
void convert_to_float(std::span<const float> from, uint8_t* to) { std::memcpy(to, from.data(), from.size_bytes()); }
void convert_to_float(std::span<const BFloat16> from, uint8_t* to) {
  convert_values<float>(from.data(), from.size(), to, [](BFloat16 value) { return to_float(value); });
}
void convert_to_bfloat16(std::span<const BFloat16> from, uint8_t* to) {
  std::memcpy(to, from.data(), from.size_bytes());
}
void convert_to_bfloat16(std::span<const float> from, uint8_t* to) {
  convert_values<BFloat16>(from.data(), from.size(), to, [](float value) { return to_bfloat16(value); });
}

template <class To>
void read_values(const uint8_t* from, std::span<float> values) {
  for (size_t i = 0; i < values.size(); ++i) {
    To value;
    std::memcpy(&value, from + i * sizeof(To), sizeof(To));
    values[i] = to_float(value);
  }
}

void encode_q6_k(std::span<const float> values, uint8_t* bytes) {
  kernels::encode_q6_k(values.data(), values.size() / grid::kSuperBlock, bytes);
}

void encode_q6_k(std::span<const BFloat16> values, uint8_t* bytes) {
  std::array<float, grid::kSuperBlock> block;
  const auto block_bytes = static_cast<size_t>(scheme(Scheme::Q6_K).block_bytes);
  for (size_t i = 0; i < values.size(); i += block.size(), bytes += block_bytes) {
    for (size_t j = 0; j < block.size(); ++j) block[j] = to_float(values[i + j]);
    kernels::encode_q6_k(block.data(), 1, bytes);
  }
}

template <class Value>
void encode(Scheme id, std::span<const Value> values, std::span<const Float16> stored_scales,
            std::span<std::byte> blocks) {
  const size_t count = count_blocks(scheme(id), values.size(), stored_scales.size(), blocks.size());
  uint8_t* bytes = raw(blocks);
  switch (id) {
    case Scheme::F32:
      return convert_to_float(values, bytes);
    case Scheme::F16:
      return convert_values<Float16>(values.data(), count, bytes, [](Value v) { return to_float16(widen(v)); });
    case Scheme::BF16:
      return convert_to_bfloat16(values, bytes);
    case Scheme::Q4_0:
      return kernels::encode_q4_0(values.data(), count, scales_or_null(stored_scales), bytes);
    case Scheme::Q8_0:
      return kernels::encode_q8_0(values.data(), count, bytes);
    case Scheme::Q6_K:
      return encode_q6_k(values, bytes);
    case Scheme::Int2:
    case Scheme::Int4:
    case Scheme::Int8:
      break;  // quant/row_codec.h
  }
  QAT_CHECK(false);
}

void narrow(std::span<const float> from, float* to) {
  std::transform(from.begin(), from.end(), to, [](float value) { return to_float(to_bfloat16(value)); });
}
void narrow(std::span<const float> from, BFloat16* to) { std::transform(from.begin(), from.end(), to, to_bfloat16); }

template <class Value>
void fake_quantize_q6_k(std::span<const BFloat16> master, Value* values) {
  std::array<float, grid::kSuperBlock> block;
  std::array<uint8_t, 210> bytes;
  for (size_t i = 0; i < master.size(); i += block.size()) {
    encode_q6_k(master.subspan(i, block.size()), bytes.data());
    kernels::decode_q6_k(bytes.data(), 1, block.data());
    narrow(block, values + i);
  }
}

template <class Value>
void decode_forward_q6_k(const uint8_t* bytes, size_t blocks, Value* values) {
  std::array<float, grid::kSuperBlock> block;
  for (size_t i = 0; i < blocks; ++i, bytes += scheme(Scheme::Q6_K).block_bytes, values += block.size()) {
    kernels::decode_q6_k(bytes, 1, block.data());
    narrow(block, values);
  }
}

template <class Value>
void decode_forward(Scheme id, std::span<const std::byte> blocks, std::span<Value> values) {
  const QuantScheme& row = scheme(id);
  QAT_CHECK(row.is_quantized());
  const size_t count = count_blocks(row, values.size(), 0, blocks.size());
  if (id == Scheme::Q4_0) {
    kernels::decode_forward_q4_0(raw(blocks), count, values.data());
  } else if (id == Scheme::Q8_0) {
    kernels::decode_forward_q8_0(raw(blocks), count, values.data());
  } else {
    decode_forward_q6_k(raw(blocks), count, values.data());
  }
}

template <class Value>
void fake_quantize(Scheme id, std::span<const BFloat16> master, std::span<const Float16> stored_scales,
                   std::span<Value> values) {
  const QuantScheme& row = scheme(id);
  QAT_CHECK(row.is_quantized() && values.size() == master.size());
  const size_t bytes = master.size() / static_cast<size_t>(row.block_size) * static_cast<size_t>(row.block_bytes);
  const size_t count = count_blocks(row, master.size(), stored_scales.size(), bytes);
  if (id == Scheme::Q4_0) {
    kernels::fake_quantize_q4_0(master.data(), count, scales_or_null(stored_scales), values.data());
  } else if (id == Scheme::Q8_0) {
    kernels::fake_quantize_q8_0(master.data(), count, values.data());
  } else {
    fake_quantize_q6_k(master, values.data());
  }
}

}  // namespace

void encode_blocks(Scheme scheme, std::span<const float> values, std::span<const Float16> stored_scales,
                   std::span<std::byte> blocks) {
  encode(scheme, values, stored_scales, blocks);
}

void encode_blocks(Scheme scheme, std::span<const BFloat16> values, std::span<const Float16> stored_scales,
                   std::span<std::byte> blocks) {
  encode(scheme, values, stored_scales, blocks);
}

void decode_blocks(Scheme id, std::span<const std::byte> blocks, std::span<float> values) {
  const size_t count = count_blocks(scheme(id), values.size(), 0, blocks.size());
  const uint8_t* bytes = raw(blocks);
  switch (id) {
    case Scheme::F32:
      std::memcpy(values.data(), bytes, blocks.size());
      return;
    case Scheme::F16:
      return read_values<Float16>(bytes, values);
    case Scheme::BF16:
      return read_values<BFloat16>(bytes, values);
    case Scheme::Q4_0:
      return kernels::decode_q4_0(bytes, count, values.data());
    case Scheme::Q8_0:
      return kernels::decode_q8_0(bytes, count, values.data());
    case Scheme::Q6_K:
      return kernels::decode_q6_k(bytes, count, values.data());
    case Scheme::Int2:
    case Scheme::Int4:
    case Scheme::Int8:
      break;  // quant/row_codec.h
  }
  QAT_CHECK(false);
}

void decode_forward_values(Scheme scheme, std::span<const std::byte> blocks, std::span<BFloat16> values) {
  decode_forward(scheme, blocks, values);
}

void decode_forward_values(Scheme scheme, std::span<const std::byte> blocks, std::span<float> values) {
  decode_forward(scheme, blocks, values);
}

void fake_quantize_blocks(Scheme scheme, std::span<const BFloat16> master, std::span<const Float16> stored_scales,
                          std::span<BFloat16> values) {
  fake_quantize(scheme, master, stored_scales, values);
}

void fake_quantize_blocks(Scheme scheme, std::span<const BFloat16> master, std::span<const Float16> stored_scales,
                          std::span<float> values) {
  fake_quantize(scheme, master, stored_scales, values);
}

}  // namespace qat
