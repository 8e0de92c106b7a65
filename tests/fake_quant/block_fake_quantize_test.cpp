// Q4_0 weights under searched and learned scales: forward values are the scalar rule's under the fp16 scale that a
// checkpoint stores, gradients the slope of the formula that LSQ differentiates.
#include "fake_quant/block_fake_quantize.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "fake_quant/block_values.h"
#include "fake_quant/tensor_values.h"
#include "fake_quant/weight_fake_quantizer.h"
#include "quant/grid.h"

namespace qat {
namespace {

float scalar_value(float value, Float16 scale) {
  const uint8_t code = grid::q4_0_code(value, grid::inverse_scale(to_float(scale)));
  return to_float(to_bfloat16(grid::q4_0_value(code, scale)));
}

class BlockScales : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  at::Tensor random(std::initializer_list<int64_t> shape) const {
    return at::randn(at::IntArrayRef(shape), at::kFloat).to(at::kBFloat16).to(GetParam());
  }
};

TEST_P(BlockScales, SearchedScalesFollowTheMaster) {
  at::Tensor master = random({6, 96});
  WeightFakeQuantizer quantizer("w", Scheme::Q4_0, {});
  quantizer.search_scales();
  for (int step = 0; step < 2; ++step) {
    const at::Tensor scales = quantizer.stored_scales(master);
    EXPECT_TRUE(scales.equal(searched_block_scales(master)));
    const auto stored = values_of<const Float16>(scales);
    const at::Tensor value = quantizer.apply(master).to(at::kFloat).flatten();
    const at::Tensor flat = master.to(at::kFloat).flatten();
    for (int64_t i = 0; i < flat.numel(); ++i) {
      ASSERT_EQ(value[i].item<float>(), scalar_value(flat[i].item<float>(), stored[static_cast<size_t>(i / 32)])) << i;
    }
    const at::Tensor rows = at::tensor({5, 0, 5}, at::kLong);
    EXPECT_TRUE(
        quantizer.apply_rows(master.index_select(0, rows), rows).equal(quantizer.apply(master).index_select(0, rows)));
    // What a checkpoint with these scales gives.
    EXPECT_EQ(quantizer.digest(master), WeightFakeQuantizer("w", Scheme::Q4_0, stored).digest(master));
    master = (master * 1.3 + 0.1).to(at::kBFloat16).to(GetParam());
    quantizer.changed();
  }
  EXPECT_EQ(quantizer.learned_scale(), nullptr);
}

TEST_P(BlockScales, LearnedScalesAreRoundedToFp16InTheForwardPass) {
  const at::Tensor master = random({5, 64});
  WeightFakeQuantizer quantizer("w", Scheme::Q4_0, {});
  quantizer.learn_scales(searched_block_scales(master), /*given=*/false);
  EXPECT_TRUE(quantizer.stored_scales(master).equal(searched_block_scales(master)));
  at::Tensor change = quantizer.learned_scale()->log_change();
  change.copy_(at::randn({10}, at::kFloat) * 0.2);
  quantizer.changed();
  const at::Tensor scales = quantizer.stored_scales(master);
  EXPECT_EQ(scales.scalar_type(), at::kHalf);
  EXPECT_TRUE(scales.equal(quantizer.learned_scale()->values().to(at::kHalf)));
  const auto stored = values_of<const Float16>(scales);
  const at::Tensor value = quantizer.apply(master).to(at::kFloat).flatten();
  const at::Tensor flat = master.to(at::kFloat).flatten();
  for (int64_t i = 0; i < flat.numel(); ++i) {
    ASSERT_EQ(value[i].item<float>(), scalar_value(flat[i].item<float>(), stored[static_cast<size_t>(i / 32)])) << i;
  }
  EXPECT_EQ(quantizer.digest(master), WeightFakeQuantizer("w", Scheme::Q4_0, stored).digest(master));
}

// What LSQ differentiates: rounding moves along with its argument. With start scale s0 and v0 = x / s0 it is
// s * (clamp(x / s) + round(clamp(v0)) - clamp(v0)), here summed over a block with the incoming gradient, at
// s = s0 * exp(t).
double surrogate(const at::Tensor& block, const at::Tensor& incoming, double start, double t) {
  const double scale = start * std::exp(t);
  double sum = 0;
  for (int64_t i = 0; i < block.numel(); ++i) {
    const double x = block[i].item<float>();
    const double at_start = std::clamp(x / start, -8.0, 7.0);
    const double value = std::clamp(x / scale, -8.0, 7.0) + std::floor(at_start + 0.5) - at_start;
    sum += static_cast<double>(incoming[i].item<float>()) * scale * value;
  }
  return sum;
}

TEST_P(BlockScales, GradientsAreTheSlopeOfTheLsqFormulaAndAreMaskedOutside) {
  at::Tensor master = random({3, 64}).set_requires_grad(true);
  WeightFakeQuantizer quantizer("w", Scheme::Q4_0, {});
  // Of both signs, some so small that much is clipped; no BF16 number lies on an end of their ranges.
  quantizer.learn_scales(at::tensor({0.3F, -0.26F, 0.1F, -0.15F, 0.6F, 0.2F}).to(at::kHalf), /*given=*/true);
  at::Tensor change = quantizer.learned_scale()->log_change();
  change.set_requires_grad(true);
  const at::Tensor incoming = random({3, 64});
  (quantizer.apply(master) * incoming).sum().backward();
  const at::Tensor blocks = master.detach().to(at::kFloat).view({6, 32});
  const at::Tensor of_values = incoming.to(at::kFloat).view({6, 32});
  const at::Tensor found = master.grad().to(at::kFloat).view({6, 32});
  int64_t outside = 0;
  for (int64_t block = 0; block < 6; ++block) {
    constexpr double kStep = 1e-6;
    const auto start = static_cast<double>(quantizer.stored_scales(master)[block].item<float>());
    const double slope = (surrogate(blocks[block], of_values[block], start, kStep) -
                          surrogate(blocks[block], of_values[block], start, -kStep)) /
                         (2 * kStep);
    const double wanted = slope / std::sqrt(32.0 * 7.0);
    EXPECT_NEAR(change.grad()[block].item<float>(), wanted, 1e-4 * (1 + std::fabs(wanted))) << "block " << block;
    for (int64_t i = 0; i < 32; ++i) {
      const double scaled = static_cast<double>(blocks[block][i].item<float>()) / start;
      const bool inside = scaled >= -8 && scaled <= 7;
      outside += inside ? 0 : 1;
      ASSERT_EQ(found[block][i].item<float>(), inside ? of_values[block][i].item<float>() : 0.0F);
    }
  }
  EXPECT_GT(outside, 10);
  EXPECT_LT(outside, 100);
}

// As a tied head and a lookup use one table: each use alone, then both.
TEST_P(BlockScales, ATiedTableGetsTheGradientsOfBothUses) {
  at::Tensor master = random({6, 64}).set_requires_grad(true);
  WeightFakeQuantizer quantizer("w", Scheme::Q4_0, {});
  quantizer.learn_scales(searched_block_scales(master), /*given=*/false);
  at::Tensor change = quantizer.learned_scale()->log_change();
  change.set_requires_grad(true);
  const at::Tensor of_head = random({6, 64}), of_rows = random({3, 64});
  const at::Tensor rows = at::tensor({4, 1, 4}, at::kLong);
  const auto gradient = [&](bool head, bool lookup) {
    at::Tensor loss = at::zeros({}, at::kFloat);
    if (head) loss = loss + (quantizer.apply(master) * of_head).sum().to(at::kFloat);
    if (lookup) loss = loss + (quantizer.apply_rows(master.index_select(0, rows), rows) * of_rows).sum().to(at::kFloat);
    loss.backward();
    const at::Tensor result = change.grad().clone();
    change.mutable_grad().reset();
    master.mutable_grad().reset();
    return result;
  };
  const at::Tensor head = gradient(true, false), lookup = gradient(false, true), both = gradient(true, true);
  EXPECT_GT(lookup[2].abs().item<float>(), 0.0F);  // of row 1
  EXPECT_EQ(lookup[0].item<float>(), 0.0F);
  EXPECT_TRUE(both.allclose(head + lookup));
}

INSTANTIATE_TEST_SUITE_P(Dtypes, BlockScales, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& test) { return test.param == at::kFloat ? "Float" : "BFloat16"; });

TEST(BlockScalesTest, ABlockOfZerosCanLeaveZero) {
  at::Tensor master = at::zeros({1, 32}, at::kFloat);
  WeightFakeQuantizer quantizer("w", Scheme::Q4_0, {});
  quantizer.learn_scales(searched_block_scales(master), /*given=*/false);
  EXPECT_EQ(quantizer.stored_scales(master)[0].item<float>(), 0x1p-14F);
  EXPECT_EQ(quantizer.apply(master).abs().max().item<float>(), 0.0F);
  master[0][3] = 1e-4;
  quantizer.changed();
  EXPECT_GT(quantizer.apply(master)[0][3].item<float>(), 0.0F);
}

}  // namespace
}  // namespace qat
