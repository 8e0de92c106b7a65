#include "reference/mobile_products.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/random.h"
#include "quant/grid.h"
#include "reference/arithmetic.h"

namespace qat {
namespace {

constexpr std::array kSchemes{Scheme::Int2, Scheme::Int4, Scheme::Int8};

// Random codes with their packed bytes and scales.
struct RandomWeight {
  std::vector<int8_t> codes;
  std::vector<std::byte> bytes;
  std::vector<float> scales;
  WeightView view;

  RandomWeight(Scheme id, CodeBytes form, int64_t rows, int64_t columns, SplitMix64& random) {
    const QuantScheme& row = scheme(id);
    const auto range = static_cast<uint64_t>(row.code_max - row.code_min + 1);
    for (int64_t i = 0; i < rows * columns; ++i) {
      codes.push_back(static_cast<int8_t>(row.code_min + static_cast<int>(random.below(range))));
    }
    bytes.resize(static_cast<size_t>(rows * row.row_bytes(columns)));
    pack_codes(id, form, codes, bytes);
    for (int64_t i = 0; i < rows; ++i) scales.push_back(static_cast<float>(0.003 + 0.02 * random.uniform()));
    view = {&row, {rows, columns}, bytes};
    view.code_bytes = form;
    view.scales = scales;
    view.scale_width = columns;
  }
};

// Among ordinary values: zeros, ties of the scale, tokens of one sign.
Matrix random_activations(int64_t tokens, int64_t columns, float scale, SplitMix64& random) {
  Matrix x(tokens, columns);
  for (int64_t token = 0; token < tokens; ++token) {
    const uint64_t kind = random.below(5);
    for (float& value : row_of(x, token)) {
      const auto uniform = static_cast<float>(4 * random.uniform() - 2);
      value = uniform;
      if (kind == 0) value = 0;
      if (kind == 1) value = std::fabs(uniform);
      if (kind == 2) value = -std::fabs(uniform);
      if (kind == 3) value = (static_cast<float>(random.below(300)) - 149.5f) * scale;
    }
  }
  return x;
}

int64_t exact_sum(const std::vector<int64_t>& a, const int8_t* b) {
  int64_t sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

float static_output(std::span<const float> x, const RandomWeight& weight, int64_t row) {
  const auto [input, output] = weight.view.edges;
  std::vector<int64_t> codes;
  for (const float value : x) codes.push_back(grid::integer_code(value, grid::inverse_scale(input), -128, 127));
  const auto sum = static_cast<float>(exact_sum(codes, weight.codes.data() + row * weight.view.columns()));
  const float ratio = input * weight.scales[static_cast<size_t>(row)] / output;
  return grid::integer_value(grid::integer_code(sum, ratio, -128, 127), output);
}

float dynamic_output(std::span<const float> x, const RandomWeight& weight, int64_t row) {
  const auto [smallest, largest] = std::minmax_element(x.begin(), x.end());
  const grid::DynamicGrid grid = grid::dynamic_grid(*smallest, *largest);
  std::vector<int64_t> codes;
  for (const float value : x) codes.push_back(grid::dynamic_code(value, grid));
  const auto sum = static_cast<float>(exact_sum(codes, weight.codes.data() + row * weight.view.columns()));
  return sum * (1.0f / grid.inverse) * weight.scales[static_cast<size_t>(row)];
}

// Shapes that leave rests in every loop; both forms of bytes; any number of threads.
TEST(MobileProductsTest, EqualTheScalarRulesToTheBit) {
  constexpr uint64_t kSeed = 11;
  SplitMix64 random(kSeed);
  for (int round = 0; round < 60; ++round) {
    const Scheme id = kSchemes[random.below(kSchemes.size())];
    const CodeBytes form = random.below(2) == 0 ? CodeBytes::Offset : CodeBytes::TwosComplement;
    const auto rows = static_cast<int64_t>(1 + random.below(70));
    const auto columns = static_cast<int64_t>(4 * (1 + random.below(80)));
    const auto tokens = static_cast<int64_t>(1 + random.below(8));
    SCOPED_TRACE(testing::Message() << "seed " << kSeed << " round " << round << " " << scheme(id).name << " " << rows
                                    << "x" << columns << " tokens " << tokens);
    RandomWeight weight(id, form, rows, columns, random);
    weight.view.edges = {0.0171f, static_cast<float>(0.01 + 0.2 * random.uniform())};
    const Matrix x = random_activations(tokens, columns, weight.view.edges.input, random);
    ThreadPool pool(1 + static_cast<int>(random.below(3)));
    const Matrix with_edges = mobile::static_product(x, weight.view, pool);
    const Matrix floats = mobile::dynamic_product(x, weight.view, pool);
    for (int64_t token = 0; token < tokens; ++token) {
      for (int64_t row = 0; row < rows; ++row) {
        ASSERT_EQ(with_edges(token, row), static_output(row_of(x, token), weight, row)) << token << ", " << row;
        ASSERT_EQ(floats(token, row), dynamic_output(row_of(x, token), weight, row)) << token << ", " << row;
      }
    }
  }
}

// Codes at the ends of their range, at the longest row of the published models: the largest sums there are.
TEST(MobileProductsTest, LargestSumsAreExact) {
  SplitMix64 random(12);
  RandomWeight weight(Scheme::Int8, CodeBytes::TwosComplement, 4, 12288, random);
  std::fill(weight.codes.begin(), weight.codes.end(), int8_t{-128});
  pack_codes(Scheme::Int8, CodeBytes::TwosComplement, weight.codes, weight.bytes);
  weight.view.edges = {1.0f, 4e6f};
  const Matrix x = Matrix::Constant(3, 12288, -1000.0f);
  ThreadPool pool(1);
  const Matrix y = mobile::static_product(x, weight.view, pool);
  EXPECT_EQ(y(2, 3), static_output(row_of(x, 2), weight, 3));
  const Matrix z = mobile::dynamic_product(x, weight.view, pool);
  EXPECT_EQ(z(2, 3), dynamic_output(row_of(x, 2), weight, 3));
  EXPECT_NEAR(static_cast<double>(z(0, 0)), 1000.0 * 128 * 12288 * static_cast<double>(weight.scales[0]), 1e3);
}

TEST(MobileProductsTest, AnEdgeWithoutScaleStaysFloat) {
  SplitMix64 random(13);
  ThreadPool pool(1);
  const auto arithmetic = make_mobile_device_arithmetic(pool, kAnyContext);
  RandomWeight weight(Scheme::Int4, CodeBytes::Offset, 8, 32, random);
  const Matrix x = random_activations(4, 32, 0.02f, random);
  EXPECT_EQ(arithmetic->linear(x, weight.view), mobile::dynamic_product(x, weight.view, pool));
  weight.view.edges.output = 0.05f;
  const Matrix floats = mobile::dynamic_product(x, weight.view, pool);
  const Matrix rounded = arithmetic->linear(x, weight.view);
  for (int64_t i = 0; i < floats.size(); ++i) {
    const int8_t code = grid::integer_code(floats.data()[i], grid::inverse_scale(0.05f), -128, 127);
    EXPECT_EQ(rounded.data()[i], grid::integer_value(code, 0.05f));
  }
}

// Lookups are exact, under one scale per row and under one per slice.
TEST(MobileProductsTest, LookupsAreExact) {
  SplitMix64 random(14);
  ThreadPool pool(1);
  for (const Scheme id : kSchemes) {
    RandomWeight weight(id, CodeBytes::Offset, 6, 24, random);
    weight.scales.resize(18);
    for (float& scale : weight.scales) scale = static_cast<float>(0.01 + random.uniform());
    weight.view.scales = weight.scales;
    weight.view.scale_width = 8;
    const std::vector<int32_t> ids{5, 0, 5, 3};
    for (const auto& arithmetic : {make_float_arithmetic(pool), make_mobile_device_arithmetic(pool, kAnyContext)}) {
      const Matrix rows = arithmetic->gather(weight.view, ids);
      for (int64_t i = 0; i < rows.rows(); ++i) {
        for (int64_t column = 0; column < 24; ++column) {
          const auto at = static_cast<size_t>(ids[static_cast<size_t>(i)] * 24 + column);
          ASSERT_EQ(rows(i, column), static_cast<float>(weight.codes[at]) * weight.scales[at / 8]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace qat
