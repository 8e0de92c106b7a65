// The Highway kernels against the plain loops that define their order of summation.
#include "reference/device_dots.h"

#include <gtest/gtest.h>

#include <bit>
#include <random>
#include <vector>

#include "core/float_types.h"
#include "quant/block_codec.h"
#include "reference/matrix.h"

namespace qat {
namespace {

class Values {
 public:
  explicit Values(uint32_t seed) : random_(seed) {}
  Matrix matrix(int64_t rows, int64_t columns) {
    Matrix values(rows, columns);
    for (int64_t i = 0; i < values.size(); ++i) values.data()[i] = normal_(random_);
    return values;
  }

 private:
  std::mt19937 random_;
  std::normal_distribution<float> normal_{0.0f, 1.0f};
};

struct EncodedWeight {
  EncodedWeight(Scheme id, const Matrix& values)
      : bytes(static_cast<size_t>(values.rows() * scheme(id).row_bytes(values.cols()))) {
    encode_blocks(id, std::span<const float>(values.data(), static_cast<size_t>(values.size())), {}, bytes);
    view = {&scheme(id), {values.rows(), values.cols()}, bytes};
  }
  std::vector<std::byte> bytes;
  WeightView view;
};

constexpr uint32_t kSeed = 20261122;

TEST(DeviceDots, InterleavedEqualsItsPlainLoop) {
  Values values(kSeed);
  for (const int64_t columns : {32, 96, 256}) {
    const EncodedWeight weight(Scheme::Q4_0, values.matrix(16, columns));
    const Matrix x = values.matrix(5, columns);
    const QuantizedRows codes = quantize_q8_0(x, CodeOrder::Natural);
    const Matrix decoded = [&] {
      Matrix rows(16, columns);
      decode_blocks(Scheme::Q4_0, weight.bytes, {rows.data(), static_cast<size_t>(rows.size())});
      return rows;
    }();
    for (const int64_t first : {0, 8}) {
      InterleavedTile tile;
      unpack_interleaved(weight.view, first, tile);
      for (int64_t token = 0; token < x.rows(); ++token) {
        float fast[8];
        float plain[8];
        device::dot_interleaved(tile, codes, token, fast);
        device::scalar::dot_interleaved(tile, codes, token, plain);
        for (int row = 0; row < 8; ++row) {
          EXPECT_EQ(std::bit_cast<uint32_t>(fast[row]), std::bit_cast<uint32_t>(plain[row])) << "seed " << kSeed;
          // Eight bits per activation: the error of a sum grows with the square root of its length.
          EXPECT_NEAR(plain[row], decoded.row(first + row).dot(x.row(token)),
                      0.04 * std::sqrt(static_cast<double>(columns)));
        }
      }
    }
  }
}

TEST(DeviceDots, CodesEqualTheirPlainLoop) {
  Values values(kSeed + 1);
  for (const Scheme id : {Scheme::Q4_0, Scheme::Q8_0}) {
    const EncodedWeight weight(id, values.matrix(7, 160));
    const Matrix x = values.matrix(4, 160);
    const QuantizedRows codes = quantize_q8_0(x, CodeOrder::Quads);
    Matrix decoded(7, 160);
    decode_blocks(id, weight.bytes, {decoded.data(), static_cast<size_t>(decoded.size())});
    for (int64_t row = 0; row < 7; ++row) {
      CodeRow unpacked;
      unpack_codes(weight.view, row, unpacked);
      for (int64_t token = 0; token < 4; ++token) {
        const float plain = device::scalar::dot_codes(unpacked, codes, token);
        EXPECT_EQ(std::bit_cast<uint32_t>(device::dot_codes(unpacked, codes, token)), std::bit_cast<uint32_t>(plain));
        EXPECT_NEAR(plain, decoded.row(row).dot(x.row(token)), 0.25);
      }
    }
  }
}

TEST(DeviceDots, SuperBlocksEqualTheirPlainLoop) {
  Values values(kSeed + 2);
  const EncodedWeight weight(Scheme::Q6_K, values.matrix(6, 768));
  const Matrix x = values.matrix(4, 768);
  const QuantizedRows codes = quantize_q8_k(x);
  Matrix decoded(6, 768);
  decode_blocks(Scheme::Q6_K, weight.bytes, {decoded.data(), static_cast<size_t>(decoded.size())});
  for (int64_t row = 0; row < 6; ++row) {
    SuperBlockRow unpacked;
    unpack_super_blocks(weight.view, row, unpacked);
    for (int64_t token = 0; token < 4; ++token) {
      const float plain = device::scalar::dot_super_blocks(unpacked, codes, token);
      EXPECT_EQ(std::bit_cast<uint32_t>(device::dot_super_blocks(unpacked, codes, token)),
                std::bit_cast<uint32_t>(plain));
      EXPECT_NEAR(plain, decoded.row(row).dot(x.row(token)), 0.6);
    }
  }
}

TEST(DeviceDots, FloatsEqualTheirPlainLoop) {
  Values values(kSeed + 3);
  using device::SumOrder;
  for (const SumOrder order : {SumOrder::FourVectors, SumOrder::FourVectorsBF16, SumOrder::OneVector}) {
    for (const int64_t count : {8, 32, 64, 104, 256}) {
      for (const bool double_tail : {false, true}) {
        const Matrix a = values.matrix(1, count);
        const Matrix b = values.matrix(1, count);
        const float plain = device::scalar::dot_floats(a.data(), b.data(), count, order, double_tail);
        EXPECT_EQ(std::bit_cast<uint32_t>(device::dot_floats(a.data(), b.data(), count, order, double_tail)),
                  std::bit_cast<uint32_t>(plain));
        EXPECT_NEAR(plain, a.row(0).dot(b.row(0)), 1e-4);
      }
    }
  }
}

TEST(DeviceDots, AddScaledEqualsItsPlainLoop) {
  Values values(kSeed + 4);
  for (const bool half : {false, true}) {
    Matrix fast = values.matrix(1, 77);
    if (half) fast = fast.unaryExpr([](float value) { return to_float(to_float16(value)); });
    Matrix plain = fast;
    const Matrix terms = values.matrix(1, 77);
    device::add_scaled(fast.data(), terms.data(), 0.3f, 77, half);
    device::scalar::add_scaled(plain.data(), terms.data(), 0.3f, 77, half);
    EXPECT_TRUE((fast.array() == plain.array()).all());
  }
}

}  // namespace
}  // namespace qat
