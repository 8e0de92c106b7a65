#include "fake_quant/key_value_fake_quantizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "quant/grid.h"
#include "quant/key_value_rotation.h"
#include "support/expect_error.h"

namespace qat {
namespace {

// Hadamard matrix by its definition: entry (i, j) is (-1)^popcount(i & j) / sqrt(n).
at::Tensor hadamard_matrix(int64_t size) {
  at::Tensor matrix = at::zeros({size, size}, at::kDouble);
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j < size; ++j) {
      const bool odd = std::popcount(static_cast<uint64_t>(i & j)) % 2 == 1;
      matrix[i][j] = (odd ? -1.0 : 1.0) / std::sqrt(static_cast<double>(size));
    }
  }
  return matrix;
}

at::Tensor through_q8_0(const at::Tensor& rotated) {
  at::Tensor result = rotated.clone();
  auto* data = result.mutable_data_ptr<float>();
  for (int64_t start = 0; start < result.numel(); start += grid::kBlock) {
    float magnitude = 0;
    for (int64_t i = 0; i < grid::kBlock; ++i) magnitude = std::max(magnitude, std::fabs(data[start + i]));
    const float scale = to_float(to_float16(magnitude / 127.0F));
    for (int64_t i = 0; i < grid::kBlock; ++i) {
      data[start + i] = scale * std::nearbyint(data[start + i] * (127.0F / magnitude));
    }
  }
  return result;
}

struct Case {
  int64_t head_dim;
  int64_t rotation;
};
class ByHeadSize : public ::testing::TestWithParam<Case> {};

TEST_P(ByHeadSize, EqualsRotateQuantizeRotateBack) {
  const auto [head_dim, rotation] = GetParam();
  const at::Tensor heads = at::randn({9, 2, head_dim}, at::kFloat);
  at::Tensor expected = heads;
  if (rotation > 0) {
    const at::Tensor matrix = hadamard_matrix(rotation);
    const auto rotate = [&](const at::Tensor& x) {
      return at::matmul(x.to(at::kDouble).reshape({-1, rotation}), matrix).reshape(x.sizes()).to(at::kFloat).contiguous();
    };
    expected = rotate(through_q8_0(rotate(heads)));
  } else {
    expected = through_q8_0(heads);
  }
  KeyValueFakeQuantizer quantizer("k", rotation, head_dim);
  const at::Tensor found = quantizer.apply(heads);
  // The rotation sums in another order than the matrix product, so a code may fall to the other side of a tie.
  const double step = heads.abs().max().item<double>() / 127 * 2;
  EXPECT_LT((found - expected).abs().max().item<double>(), step);
  EXPECT_LT((found - expected).abs().mean().item<double>(), step / 100);
  EXPECT_FALSE(found.equal(heads));
}

INSTANTIATE_TEST_SUITE_P(HeadSizes, ByHeadSize,
                         ::testing::Values(Case{32, 0}, Case{64, 64}, Case{128, 128}, Case{192, 64}, Case{128, 64}, Case{96, 0}));

TEST(KeyValueRotation, FollowsTheFirstLayersHeadSize) {
  EXPECT_EQ(key_value_rotation(64, 192).key, 64);
  EXPECT_EQ(key_value_rotation(256, 512).key, 512);
  EXPECT_EQ(key_value_rotation(256, 512).value, 64);
  EXPECT_EQ(key_value_rotation(32, 64).key, 0);
}

TEST(KeyValueFakeQuantizer, TheGradientPassesStraightThroughAndOddHeadsAreRefused) {
  at::Tensor heads = at::randn({3, 1, 64}, at::kFloat).set_requires_grad(true);
  KeyValueFakeQuantizer quantizer("k", 64, 64);
  quantizer.apply(heads).sum().backward();
  EXPECT_TRUE(heads.grad().equal(at::ones({3, 1, 64}, at::kFloat)));
  testing::expect_error([] { KeyValueFakeQuantizer odd("layers.0.key", 0, 48); }, {"layers.0.key", "48", "32"});
}

}  // namespace
}  // namespace qat
