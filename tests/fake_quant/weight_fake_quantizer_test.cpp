#include "fake_quant/weight_fake_quantizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <array>

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
  for (int i = 0; i < 8; ++i)
    scales.push_back(to_float16((i % 2 == 0 ? 0.3F : -0.2F) * (1 + 0.1F * static_cast<float>(i))));
  WeightFakeQuantizer quantizer("w", Scheme::Q4_0, scales);
  const at::Tensor value = quantizer.apply(master).to(at::kFloat).flatten();
  const at::Tensor flat = master.to(at::kFloat).flatten();
  for (int64_t i = 0; i < flat.numel(); ++i)
    ASSERT_EQ(value[i].item<float>(), expected_value(flat, i, scales.data())) << i;

  const at::Tensor rows = at::tensor({3, 0, 3}, at::kLong);
  EXPECT_TRUE(quantizer.apply_rows(master, rows).equal(quantizer.apply(master).index_select(0, rows)));
}

TEST_P(ByDtype, TheGradientPassesStraightThrough) {
  at::Tensor master = at::randn({6, 64}, GetParam()).set_requires_grad(true);
  const at::Tensor weights = at::randn({6, 64}, GetParam());
  WeightFakeQuantizer quantizer("w", Scheme::Q4_0, {});
  (quantizer.apply(master) * weights).sum().backward();
  EXPECT_TRUE(master.grad().equal(weights));

  master.mutable_grad().reset();
  const at::Tensor rows = at::tensor({1, 4, 1}, at::kLong);
  quantizer.apply_rows(master, rows).sum().backward();
  EXPECT_EQ(master.grad()[1][0].item<float>(), 2.0F);
  EXPECT_EQ(master.grad()[4][0].item<float>(), 1.0F);
  EXPECT_EQ(master.grad()[0][0].item<float>(), 0.0F);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, ByDtype, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& test) { return test.param == at::kFloat ? "Float" : "BFloat16"; });

TEST(WeightFakeQuantizer, BothDtypesReadTheSameMatrix) {
  const at::Tensor master = at::randn({64, 256}, at::kFloat).to(at::kBFloat16);
  for (const Scheme scheme_id : {Scheme::Q4_0, Scheme::Q8_0, Scheme::Q6_K}) {
    WeightFakeQuantizer narrow("w", scheme_id, {});
    WeightFakeQuantizer wide("w", scheme_id, {});
    EXPECT_TRUE(narrow.apply(master).to(at::kFloat).equal(wide.apply(master.to(at::kFloat))));
    EXPECT_EQ(narrow.digest(master), wide.digest(master.to(at::kFloat)));
  }
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
