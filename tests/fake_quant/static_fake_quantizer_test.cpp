#include "fake_quant/static_fake_quantizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <vector>

#include "quant/grid.h"
#include "support/expect_error.h"

namespace qat {
namespace {

TEST(StaticFakeQuantizerTest, AnUncalibratedEdgeIsAnErrorThatNamesIt) {
  StaticFakeQuantizer edge("layers.3.mlp.input");
  testing::expect_error([&] { edge.apply(at::randn({2, 4}, at::kFloat)); }, {"layers.3.mlp.input", "never calibrated"});
  edge.set_enabled(false);
  const at::Tensor activation = at::randn({2, 4}, at::kFloat);
  EXPECT_TRUE(edge.apply(activation).is_same(activation));
  EXPECT_FALSE(edge.has_fired());
}

TEST(StaticFakeQuantizerTest, RecordsTheCodesThatItsValuesStandFor) {
  StaticFakeQuantizer edge("e");
  edge.set_scale(0.02F, /*given=*/true);
  const at::Tensor activation = 2 * at::randn({5, 13}, at::kFloat);
  std::vector<int8_t> codes;
  edge.record_into(&codes);
  QuantizationStatistics statistics;
  edge.measure_into(&statistics);
  const at::Tensor first = edge.apply(activation);
  edge.apply(-activation);
  edge.record_into(nullptr);
  edge.measure_into(nullptr);
  edge.apply(activation);
  ASSERT_EQ(codes.size(), 2U * 65U);
  int clipped = 0;
  for (int64_t i = 0; i < 65; ++i) {
    const float x = activation.view({-1})[i].item<float>();
    const int8_t code = grid::integer_code(x, grid::inverse_scale(0.02F), -128, 127);
    ASSERT_EQ(codes[static_cast<size_t>(i)], code);
    ASSERT_EQ(first.view({-1})[i].item<float>(), grid::integer_value(code, 0.02F));
    clipped += x < -128 * 0.02F || x > 127 * 0.02F ? 1 : 0;
    clipped += -x < -128 * 0.02F || -x > 127 * 0.02F ? 1 : 0;
  }
  EXPECT_EQ(statistics.count(), 130);
  EXPECT_NEAR(statistics.clipping_rate(), clipped / 130.0, 1e-12);
}

class SharedEdge : public ::testing::Test {
 protected:
  SharedEdge() {
    edge_.add_user();
    edge_.add_user();
    edge_.set_scale(0.02F, /*given=*/false);
    log_change_ = edge_.scale().log_change();
    log_change_.set_requires_grad(true);
  }

  StaticFakeQuantizer edge_{"layers.0.mlp.input"};
  at::Tensor log_change_;
};

TEST_F(SharedEdge, IsComputedOnceForOneTensorAndGradientsAdd) {
  const at::Tensor input = (0.5 * at::randn({4, 8}, at::kFloat)).set_requires_grad(true);
  const at::Tensor of_gate = at::randn({4, 8}, at::kFloat);
  const at::Tensor of_up = at::randn({4, 8}, at::kFloat);
  std::vector<int8_t> codes;
  edge_.record_into(&codes);
  const at::Tensor gate = edge_.apply(input);
  const at::Tensor up = edge_.apply(input);
  EXPECT_TRUE(gate.is_same(up));
  EXPECT_EQ(codes.size(), 32U);
  ((gate * of_gate).sum() + (up * of_up).sum()).backward();
  EXPECT_TRUE(input.grad().allclose(of_gate + of_up));
  const at::Tensor shared = log_change_.grad().clone();

  // The same by two edges of one user each.
  log_change_.mutable_grad().reset();
  StaticFakeQuantizer alone("alone");
  alone.set_scale(0.02F, false);
  at::Tensor alone_change = alone.scale().log_change();
  alone_change.set_requires_grad(true);
  (alone.apply(input) * of_gate).sum().backward();
  (alone.apply(input) * of_up).sum().backward();
  EXPECT_TRUE(shared.allclose(alone_change.grad(), 1e-4, 1e-6));
  EXPECT_GT(shared.abs().item<float>(), 0.0F);
}

TEST_F(SharedEdge, AnotherTensorIsComputedAnew) {
  const at::Tensor first = at::randn({4, 8}, at::kFloat);
  const at::Tensor second = at::randn({4, 8}, at::kFloat);
  const at::Tensor of_first = edge_.apply(first).clone();
  const at::Tensor of_second = edge_.apply(second);  // though the other user of `first` has not come
  EXPECT_FALSE(of_second.equal(of_first));
  // After both users came, the next step computes again, with the scale as it is then.
  edge_.apply(second);
  at::Tensor moved = log_change_.detach();
  moved.add_(1.0);
  edge_.scale().changed();
  EXPECT_FALSE(edge_.apply(second).equal(of_second));
}

TEST(StaticFakeQuantizerTest, ObservationPassesThroughAndKeepsFirstTokensApart) {
  StaticFakeQuantizer edge("e");
  const at::Tensor activation = at::tensor({1.0F, -2.0F, 900.0F, 3.0F, 4.0F, -5.0F, -700.0F, 0.0F}).view({4, 2});
  const at::Tensor first_rows = at::tensor({1, 3}, at::kLong);  // rows {900, 3} and {-700, 0}
  edge.start_observing(&first_rows);
  EXPECT_TRUE(edge.apply(activation).is_same(activation));
  EXPECT_FALSE(edge.has_fired());
  const auto seen = edge.take_observation();
  ASSERT_TRUE(seen.has_value());
  EXPECT_EQ(seen->rows.count(), 4);
  EXPECT_EQ(seen->rows.largest(), 5.0F);
  EXPECT_EQ(seen->first_rows.count(), 4);
  EXPECT_EQ(seen->first_rows.largest(), 900.0F);
  EXPECT_FALSE(edge.take_observation().has_value());
  edge.start_observing(&first_rows);
  EXPECT_FALSE(edge.take_observation().has_value());  // nothing came by
}

}  // namespace
}  // namespace qat
