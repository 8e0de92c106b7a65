#include "reference/mobile_products.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/error.h"
#include "quant/grid.h"
#include "quant/row_codec.h"
#include "reference/mobile_dots.h"

namespace qat::mobile {

namespace {

constexpr int64_t kTileValues = 1 << 16;  // unpacked weights at a time: they stay in the second-level cache

// Codes of activations less their zero point.
struct Activations {
  int64_t tokens;
  std::vector<int16_t> codes;
  std::vector<float> steps;  // per token; of dynamic grids
};

Activations static_codes(const Matrix& x, float scale) {
  std::vector<int8_t> codes(static_cast<size_t>(x.size()));
  encode_groups(Scheme::Int8, std::span(x.data(), codes.size()), {&scale, 1}, x.size(), codes);
  return {x.rows(), {codes.begin(), codes.end()}, {}};
}

Activations dynamic_codes(const Matrix& x) {
  Activations result{x.rows(), {}, {}};
  result.codes.reserve(static_cast<size_t>(x.size()));
  for (int64_t token = 0; token < x.rows(); ++token) {
    const auto values = row_of(x, token);
    const auto [smallest, largest] = std::minmax_element(values.begin(), values.end());
    const grid::DynamicGrid grid = grid::dynamic_grid(*smallest, *largest);
    for (const float value : values) result.codes.push_back(grid::dynamic_code(value, grid));
    result.steps.push_back(1.0f / grid.inverse);
  }
  return result;
}

// The codes that every byte of packed weights holds.
template <size_t kLanes>
using ByteTable = std::array<std::array<int16_t, kLanes>, 256>;

template <size_t kLanes>
ByteTable<kLanes> make_table(Scheme id, CodeBytes form) {
  ByteTable<kLanes> table;
  for (size_t byte = 0; byte < table.size(); ++byte) {
    const auto packed = static_cast<std::byte>(byte);
    std::array<int8_t, kLanes> codes;
    unpack_codes(id, form, {&packed, 1}, codes);
    std::copy(codes.begin(), codes.end(), table[byte].begin());
  }
  return table;
}

template <size_t kLanes>
void unpack(std::span<const std::byte> bytes, const ByteTable<kLanes>& table, int16_t* codes) {
  for (const std::byte byte : bytes) {
    std::memcpy(codes, table[static_cast<size_t>(byte)].data(), sizeof(table[0]));
    codes += kLanes;
  }
}

void unpack_rows(const WeightView& weight, int64_t first, int64_t count, int16_t* codes) {
  static const std::array kPairs{make_table<2>(Scheme::Int4, CodeBytes::TwosComplement),
                                 make_table<2>(Scheme::Int4, CodeBytes::Offset)};
  static const std::array kQuads{make_table<4>(Scheme::Int2, CodeBytes::TwosComplement),
                                 make_table<4>(Scheme::Int2, CodeBytes::Offset)};
  const auto bytes = weight.row_blocks(first, count);
  const size_t form = weight.code_bytes == CodeBytes::Offset ? 1 : 0;
  switch (weight.scheme->id) {
    case Scheme::Int2:
      return unpack(bytes, kQuads[form], codes);
    case Scheme::Int4:
      return unpack(bytes, kPairs[form], codes);
    case Scheme::Int8:
      std::transform(bytes.begin(), bytes.end(), codes, [](std::byte b) { return static_cast<int8_t>(b); });
      return;
    default:
      QAT_CHECK(false);
  }
}

// finish(sum, token, row) makes an output of an exact integer sum.
template <class Finish>
Matrix product(const Activations& x, const WeightView& weight, ThreadPool& pool, const Finish& finish) {
  QAT_CHECK(weight.scale_width == weight.columns());
  const int64_t columns = weight.columns();
  const int64_t tile_rows = std::clamp<int64_t>(kTileValues / columns / 4 * 4, 4, 32);
  Matrix y(x.tokens, weight.rows());
  pool.run((weight.rows() + tile_rows - 1) / tile_rows, [&](int64_t tile) {
    const int64_t first = tile * tile_rows;
    const int64_t rows = std::min(tile_rows, weight.rows() - first);
    std::vector<int16_t> codes(static_cast<size_t>(rows * columns));
    std::vector<int32_t> sums(static_cast<size_t>(x.tokens * rows));
    unpack_rows(weight, first, rows, codes.data());
    multiply_codes(x.codes.data(), x.tokens, codes.data(), rows, columns, sums.data(), rows);
    const int32_t* sum = sums.data();
    for (int64_t token = 0; token < x.tokens; ++token) {
      for (int64_t row = first; row < first + rows; ++row) y(token, row) = finish(*sum++, token, row);
    }
  });
  return y;
}

}  // namespace

Matrix static_product(const Matrix& x, const WeightView& weight, ThreadPool& pool) {
  const LinearScales edges = weight.edges;
  QAT_CHECK(edges.input > 0 && edges.output > 0);
  std::vector<float> ratios;  // steps of the output per unit of the integer sum
  for (const float scale : weight.scales) ratios.push_back(edges.input * scale / edges.output);
  return product(static_codes(x, edges.input), weight, pool, [&](int32_t sum, int64_t, int64_t row) {
    const int8_t code = grid::integer_code(static_cast<float>(sum), ratios[static_cast<size_t>(row)],
                                           grid::kActivationMin, grid::kActivationMax);
    return grid::integer_value(code, edges.output);
  });
}

Matrix dynamic_product(const Matrix& x, const WeightView& weight, ThreadPool& pool) {
  const Activations codes = dynamic_codes(x);
  return product(codes, weight, pool, [&](int32_t sum, int64_t token, int64_t row) {
    return static_cast<float>(sum) * codes.steps[static_cast<size_t>(token)] * weight.scales[static_cast<size_t>(row)];
  });
}

}  // namespace qat::mobile
