#include "fake_quant/weight_fake_quantizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "quant/grid.h"

namespace qat {
namespace {

// The scalar rule, block by block: bf16(decode(encode(bf16(x)))).
float expected_value(const at::Tensor& flat, int64_t index, const Float16* stored) {
  std::array<float, grid::kBlock> block{};
  const int64_t start = index / grid::kBlock * grid::kBlock;
  for (int64_t i = 0; i < grid::kBlock; ++i) {
    block[static_cast<size_t>(i)] = to_float(to_bfloat16(flat[start + i].item<float>()));
  }
  const float scale = stored != nullptr ? to_float(stored[index / grid::kBlock]) : grid::q4_0_scale(block);
  const Float16 half = stored != nullptr ? stored[index / grid::kBlock] : to_float16(scale);
  const uint8_t code = grid::q4_0_code(block[static_cast<size_t>(index - start)], grid::inverse_scale(scale));
  return to_float(to_bfloat16(grid::q4_0_value(code, half)));
}

class ByDtype : public ::testing::TestWithParam<at::ScalarType> {};

TEST_P(ByDtype, TheForwardValueIsTheScalarRule) {
  const at::Tensor master = at::randn({7, 96}, GetParam());
  WeightFakeQuantizer quantizer("w", Scheme::Q4_0, {});
  const at::Tensor value = quantizer.apply(master).to(at::kFloat).flatten();
  const at::Tensor flat = master.to(at::kFloat).flatten();
  for (int64_t i = 0; i < flat.numel(); ++i) ASSERT_EQ(value[i].item<float>(), expected_value(flat, i, nullptr)) << i;
}

TEST_P(ByDtype, StoredScalesAreHonoured) {
  const at::Tensor master = at::randn({4, 64}, GetParam());
  std::vector<Float16> scales;
  for (int i = 0; i < 8; ++i) scales.push_back(to_float16((i % 2 == 0 ? 0.3F : -0.2F) * (1 + 0.1F * static_cast<float>(i))));
  WeightFakeQuantizer quantizer("w", Scheme::Q4_0, scales);
  const at::Tensor value = quantizer.apply(master).to(at::kFloat).flatten();
  const at::Tensor flat = master.to(at::kFloat).flatten();
  for (int64_t i = 0; i < flat.numel(); ++i) ASSERT_EQ(value[i].item<float>(), expected_value(flat, i, scales.data())) << i;

  const at::Tensor rows = at::tensor({3, 0, 3}, at::kLong);
  EXPECT_TRUE(
      quantizer.apply_rows(master.index_select(0, rows), rows).equal(quantizer.apply(master).index_select(0, rows)));
}

TEST_P(ByDtype, TheGradientPassesStraightThrough) {
  at::Tensor master = at::randn({6, 64}, GetParam()).set_requires_grad(true);
  const at::Tensor weights = at::randn({6, 64}, GetParam());
  WeightFakeQuantizer quantizer("w", Scheme::Q4_0, {});
  (quantizer.apply(master) * weights).sum().backward();
  EXPECT_TRUE(master.grad().equal(weights));

  master.mutable_grad().reset();
  const at::Tensor rows = at::tensor({1, 4, 1}, at::kLong);
  quantizer.apply_rows(master.index_select(0, rows), rows).sum().backward();
  EXPECT_EQ(master.grad()[1][0].item<float>(), 2.0F);
  EXPECT_EQ(master.grad()[4][0].item<float>(), 1.0F);
  EXPECT_EQ(master.grad()[0][0].item<float>(), 0.0F);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, ByDtype, ::testing::Values(at::kFloat, at::kBFloat16), [](const auto& test) {
  return test.param == at::kFloat ? "Float" : "BFloat16";
});

TEST(WeightFakeQuantizer, BothDtypesReadTheSameMatrix) {
  const at::Tensor master = at::randn({64, 256}, at::kFloat).to(at::kBFloat16);
  for (const Scheme scheme_id : {Scheme::Q4_0, Scheme::Q8_0, Scheme::Q6_K}) {
    WeightFakeQuantizer narrow("w", scheme_id, {});
    WeightFakeQuantizer wide("w", scheme_id, {});
    EXPECT_TRUE(narrow.apply(master).to(at::kFloat).equal(wide.apply(master.to(at::kFloat))));
    EXPECT_EQ(narrow.digest(master), wide.digest(master.to(at::kFloat)));
  }
}

// A sample of a whole small weight: its codes stand for what the forward pass reads, its error is that of the exact
// values.
TEST(WeightFakeQuantizer, ASampleTellsTheCodesAndTheErrorOfTheWeight) {
  const at::Tensor master = at::randn({8, 256}, at::kFloat).to(at::kBFloat16);
  const at::Tensor exact = master.to(at::kFloat).flatten();
  for (const Scheme id : {Scheme::Q4_0, Scheme::Q8_0, Scheme::Q6_K}) {
    WeightFakeQuantizer quantizer("w", id, {});
    const WeightSample sample = quantizer.sample(master);
    const at::Tensor read = quantizer.apply(master.to(at::kFloat)).flatten();
    ASSERT_EQ(sample.codes.size(), 2048U);
    for (int64_t i = 0; i < 2048; ++i) {
      const int8_t code = sample.codes[static_cast<size_t>(i)];
      ASSERT_TRUE(code >= scheme(id).code_min && code <= scheme(id).code_max);
      ASSERT_EQ(code == 0, read[i].item<float>() == 0) << i;
    }
    const double noise = (read - exact).pow(2).sum().item<double>();
    const double signal = exact.pow(2).sum().item<double>();
    // The forward pass rounds to BF16 what the codes stand for: noise at -56 dB, half a dB of what Q8_0 has.
    EXPECT_NEAR(sample.statistics.signal_to_noise(), 10 * std::log10(signal / noise), 1.0) << scheme(id).name;
    EXPECT_EQ(sample.statistics.count(), 2048);
  }
}

TEST(WeightFakeQuantizer, ASampleCountsWhatStoredScalesClip) {
  at::Tensor master = at::zeros({1, 64}, at::kFloat);
  master[0][1] = 7.5F;   // halves go up, to a code that is not there
  master[0][2] = -8.5F;  // the edge of the first code
  master[0][3] = 20;
  master[0][40] = 15.5F;
  const std::vector<Float16> scales{to_float16(1), to_float16(-2)};
  WeightFakeQuantizer quantizer("w", Scheme::Q4_0, scales);
  const WeightSample sample = quantizer.sample(master);
  EXPECT_EQ(sample.codes[3], 7);
  EXPECT_EQ(sample.codes[40], -8);
  EXPECT_DOUBLE_EQ(sample.statistics.clipping_rate(), 1.0 / 64);
}

TEST(WeightFakeQuantizer, AChangedMasterIsSeenOnlyAfterItWasAnnounced) {
  at::Tensor master = at::randn({2, 32}, at::kFloat);
  WeightFakeQuantizer quantizer("w", Scheme::Q4_0, {});
  EXPECT_FALSE(quantizer.has_fired());
  const at::Tensor before = quantizer.apply(master).clone();
  EXPECT_TRUE(quantizer.has_fired());
  master.mul_(3);
  EXPECT_TRUE(quantizer.apply(master).equal(before));
  quantizer.changed();
  EXPECT_FALSE(quantizer.apply(master).equal(before));
  quantizer.set_enabled(false);
  EXPECT_TRUE(quantizer.apply(master).equal(master));
}

}  // namespace
}  // namespace qat
