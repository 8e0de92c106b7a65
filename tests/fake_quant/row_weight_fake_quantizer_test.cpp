#include "fake_quant/row_weight_fake_quantizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "core/sha256.h"
#include "quant/grid.h"
#include "support/expect_error.h"

namespace qat {
namespace {

WeightSpec matrix(int64_t rows, int64_t columns) {
  return {.name = "layers.0.mlp.up_proj.weight",
          .gguf_name = "",
          .shape = {rows, columns},
          .role = WeightRole::MlpUp,
          .layer = 0,
          .scale_width = columns};
}

// A per-layer table: the slices of four layers in every row.
WeightSpec sliced_table(int64_t rows) {
  return {.name = "embed_tokens_per_layer.weight",
          .gguf_name = "",
          .shape = {rows, 64},
          .role = WeightRole::PerLayerEmbedding,
          .layer = {},
          .scale_width = 16};
}

int8_t code_of(Scheme id, float value, float scale) {
  return grid::integer_code(value, grid::inverse_scale(scale), scheme(id).code_min, scheme(id).code_max);
}

// Magnitude of the largest value of a group over the largest code.
float largest_over_code(Scheme id, const at::Tensor& group) {
  return group.to(at::kFloat).abs().max().item<float>() / static_cast<float>(scheme(id).code_max);
}

class RowWeight : public ::testing::TestWithParam<at::ScalarType> {};

TEST_P(RowWeight, TheForwardValueIsTheScalarRuleUnderTheScaleOfItsSlice) {
  for (const Scheme id : {Scheme::Int2, Scheme::Int4, Scheme::Int8}) {
    const at::Tensor master = at::randn({5, 64}, GetParam());
    RowWeightFakeQuantizer quantizer(sliced_table(5), id, false);
    quantizer.find_scales(master, RowScaleMethod::AbsoluteMax);
    const at::Tensor value = quantizer.apply(master).to(at::kFloat);
    ASSERT_EQ(quantizer.stored_scales().numel(), 20);
    for (int64_t row = 0; row < 5; ++row) {
      for (int64_t i = 0; i < 64; ++i) {
        const float scale = largest_over_code(id, master[row].narrow(0, i / 16 * 16, 16));
        ASSERT_EQ(quantizer.stored_scales()[row * 4 + i / 16].item<float>(), scale);
        const float exact = grid::integer_value(code_of(id, master[row][i].item<float>(), scale), scale);
        ASSERT_EQ(value[row][i].item<float>(), at::tensor(exact).to(GetParam()).item<float>()) << row << ", " << i;
      }
    }
  }
}

TEST_P(RowWeight, RowsAreThoseOfTheWholeTable) {
  const at::Tensor master = at::randn({9, 64}, GetParam());
  for (const bool one_scale_per_row : {false, true}) {
    RowWeightFakeQuantizer quantizer(sliced_table(9), Scheme::Int4, one_scale_per_row);
    quantizer.find_scales(master, RowScaleMethod::Searched);
    const at::Tensor rows = at::tensor({7, 0, 7, 3}, at::kLong);
    EXPECT_TRUE(
        quantizer.apply_rows(master.index_select(0, rows), rows).equal(quantizer.apply(master).index_select(0, rows)));
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, RowWeight, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& test) { return test.param == at::kFloat ? "Float" : "BFloat16"; });

// As a tied head and a lookup use one table: each use alone, then both.
TEST(RowWeightFakeQuantizerTest, ATiedTableGetsTheGradientsOfBothUses) {
  at::Tensor master = at::randn({6, 16}, at::kFloat).set_requires_grad(true);
  RowWeightFakeQuantizer quantizer(matrix(6, 16), Scheme::Int4, false);
  quantizer.give_scales(std::vector<float>(6, 1.0F));
  at::Tensor log_change = quantizer.scale().log_change();
  log_change.set_requires_grad(true);
  const at::Tensor of_head = at::randn({6, 16}, at::kFloat);
  const at::Tensor of_rows = at::randn({3, 16}, at::kFloat);
  const at::Tensor rows = at::tensor({4, 1, 4}, at::kLong);

  struct Gradients {
    at::Tensor master;
    at::Tensor scales;
  };
  const auto gradients = [&](bool head, bool lookup) {
    at::Tensor loss = at::zeros({}, at::kFloat);
    if (head) loss = loss + (quantizer.apply(master) * of_head).sum();
    if (lookup) loss = loss + (quantizer.apply_rows(master.index_select(0, rows), rows) * of_rows).sum();
    loss.backward();
    const Gradients result{master.grad().clone(), log_change.grad().clone()};
    master.mutable_grad().reset();
    log_change.mutable_grad().reset();
    return result;
  };
  const Gradients head = gradients(true, false);
  const Gradients lookup = gradients(false, true);
  const Gradients both = gradients(true, true);
  EXPECT_TRUE(head.master.equal(of_head));  // nothing comes near the last code
  EXPECT_TRUE(lookup.master[4].allclose(of_rows[0] + of_rows[2]));
  EXPECT_EQ(lookup.master[0].abs().sum().item<float>(), 0.0F);
  EXPECT_GT(lookup.scales[1].abs().item<float>(), 0.0F);
  EXPECT_EQ(lookup.scales[2].item<float>(), 0.0F);
  EXPECT_TRUE(both.master.allclose(head.master + lookup.master));
  EXPECT_TRUE(both.scales.allclose(head.scales + lookup.scales));
}

TEST(RowWeightFakeQuantizerTest, OneScalePerRowIsStoredOncePerSlice) {
  const at::Tensor master = at::randn({3, 64}, at::kFloat);
  RowWeightFakeQuantizer quantizer(sliced_table(3), Scheme::Int4, true);
  quantizer.find_scales(master, RowScaleMethod::AbsoluteMax);
  EXPECT_EQ(quantizer.scale().values().numel(), 3);
  const at::Tensor stored = quantizer.stored_scales();
  ASSERT_EQ(stored.numel(), 12);
  for (int64_t i = 0; i < 12; ++i) {
    EXPECT_EQ(stored[i].item<float>(), largest_over_code(Scheme::Int4, master[i / 4]));
  }

  const std::vector<float> same{1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
  quantizer.give_scales(same);
  EXPECT_TRUE(quantizer.scale().is_given());
  EXPECT_TRUE(quantizer.scale().values().equal(at::tensor({1.0F, 2.0F, 3.0F})));
  std::vector<float> different = same;
  different[6] = 2.5F;
  testing::expect_error([&] { quantizer.give_scales(different); },
                        {"embed_tokens_per_layer.weight", "scale_per: slice"});
  RowWeightFakeQuantizer by_slice(sliced_table(3), Scheme::Int4, false);
  by_slice.give_scales(different);
  EXPECT_EQ(by_slice.stored_scales()[6].item<float>(), 2.5F);
}

TEST(RowWeightFakeQuantizerTest, TheDigestIsThatOfScalarCodesAndStoredScales) {
  const at::Tensor master = at::randn({7, 64}, at::kFloat).to(at::kBFloat16);
  for (const bool one_scale_per_row : {false, true}) {
    RowWeightFakeQuantizer quantizer(sliced_table(7), Scheme::Int2, one_scale_per_row);
    quantizer.find_scales(master, RowScaleMethod::Searched);
    const at::Tensor scales = quantizer.stored_scales();
    Sha256 codes;
    Sha256 scale_bytes;
    for (int64_t i = 0; i < 7 * 64; ++i) {
      const float scale = scales[i / 16].item<float>();
      const auto code = static_cast<std::byte>(code_of(Scheme::Int2, master.view({-1})[i].item<float>(), scale));
      codes.update({&code, 1});
      if (i % 16 == 0) scale_bytes.update(std::as_bytes(std::span(&scale, 1)));
    }
    const WeightDigest digest = quantizer.digest(master);
    EXPECT_EQ(digest.codes, codes.finish());
    EXPECT_EQ(digest.scales, scale_bytes.finish());
    EXPECT_EQ(digest.codes, quantizer.digest(master.to(at::kFloat)).codes);
  }
}

TEST(RowWeightFakeQuantizerTest, AMovedMasterOrScaleIsSeenOnlyAfterItWasAnnounced) {
  at::Tensor master = at::randn({2, 32}, at::kFloat);
  RowWeightFakeQuantizer quantizer(matrix(2, 32), Scheme::Int8, false);
  quantizer.find_scales(master, RowScaleMethod::AbsoluteMax);
  EXPECT_FALSE(quantizer.has_fired());
  const at::Tensor before = quantizer.apply(master).clone();
  EXPECT_TRUE(quantizer.has_fired());
  master.mul_(0.5);
  EXPECT_TRUE(quantizer.apply(master).equal(before));
  quantizer.changed();
  const at::Tensor of_master = quantizer.apply(master).clone();
  EXPECT_FALSE(of_master.equal(before));
  at::Tensor log_change = quantizer.scale().log_change();
  log_change.add_(0.3);
  quantizer.changed();
  EXPECT_FALSE(quantizer.apply(master).equal(of_master));
  quantizer.set_enabled(false);
  EXPECT_TRUE(quantizer.apply(master).equal(master));
}

TEST(RowWeightFakeQuantizerTest, ASampleCountsWhatIsClipped) {
  at::Tensor master = at::zeros({1, 64}, at::kFloat);
  master[0][3] = 20.0;  // one value of 64 is far beyond 7
  RowWeightFakeQuantizer quantizer(matrix(1, 64), Scheme::Int4, false);
  quantizer.give_scales(std::vector<float>{1.0F});
  const auto [statistics, codes] = quantizer.sample(master);
  EXPECT_EQ(codes[3], 7);
  EXPECT_EQ(codes[4], 0);
  EXPECT_EQ(statistics.count(), 64);
  EXPECT_DOUBLE_EQ(statistics.clipping_rate(), 1.0 / 64);
  EXPECT_NEAR(statistics.signal_to_noise(), 10 * std::log10(400.0 / 169.0), 1e-6);
}

// The codes of a sample are those of the scalar rule at the sampled places.
TEST(RowWeightFakeQuantizerTest, ASampleHasTheCodesOfTheGrid) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor master = at::randn({600, 48}, type);
    RowWeightFakeQuantizer quantizer(matrix(600, 48), Scheme::Int4, false);
    quantizer.find_scales(master, RowScaleMethod::Searched);
    const WeightSample sample = quantizer.sample(master);
    const at::Tensor parts =
        sampled_groups(600 * 48 / 16, 16);  // the largest power of two, up to 32, that divides a row
    ASSERT_EQ(sample.codes.size(), 16384U);
    ASSERT_EQ(parts.numel(), 1024);
    const at::Tensor values = master.view({-1, 16}).to(at::kFloat);
    for (int64_t i = 0; i < 1024; ++i) {
      const int64_t part = parts[i].item<int64_t>();
      const float scale = quantizer.scale().values()[part * 16 / 48].item<float>();
      for (int64_t j = 0; j < 16; ++j) {
        ASSERT_EQ(sample.codes[static_cast<size_t>(i * 16 + j)],
                  code_of(Scheme::Int4, values[part][j].item<float>(), scale));
      }
    }
  }
}

}  // namespace
}  // namespace qat
