// The slots of projections and layers: what enters through them reaches every use and its gradient comes back.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones_like.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/error.h"
#include "model/chunked_head.h"
#include "model/golden_models.h"
#include "model/torch_language_model.h"

namespace qat {
namespace {

using testing::golden_model;
using testing::largest_difference;

// A transform whose effect equals that of other weights: w -> 0.5 w.
class Halving final : public WeightTransform {
 public:
  at::Tensor apply(const at::Tensor& master) override {
    ++whole;
    return master * 0.5;
  }
  at::Tensor apply_rows(const at::Tensor& values, const at::Tensor&) override {
    ++by_rows;
    return values * 0.5;
  }
  int whole = 0;
  int by_rows = 0;
};

class Adding final : public WeightDelta {
 public:
  at::Tensor add_to(const at::Tensor& master) override { return master + 0.25; }
};

class Scaling final : public ActivationTransform {
 public:
  explicit Scaling(double factor) : factor_(factor) {}
  at::Tensor apply(const at::Tensor& activation) override { return activation * factor_; }

 private:
  double factor_;
};

at::Tensor golden_tokens(const char* kind) { return testing::Expected(kind)["tokens"]; }

at::Tensor logits_of(const Gemma4Model& model, const at::Tensor& tokens) {
  return model.logits(model.hidden_states(PackedTokens::single(tokens)));
}

TEST(Slots, WeightTransformsReachEveryMatrixAndTable) {
  for (const char* kind : {"e2b", "26b"}) {
    const at::NoGradGuard no_gradients;
    const auto changed = golden_model(kind);
    const auto transformed = golden_model(kind);
    std::vector<std::shared_ptr<Halving>> halvings;
    for (const WeightSpec& spec : changed->weights().weights()) {
      if (!is_matrix(spec.role)) continue;
      changed->parameter(spec.name).mul_(0.5);
      halvings.push_back(std::make_shared<Halving>());
      transformed->projection(spec.name).weight_transform = halvings.back();
    }
    const at::Tensor tokens = golden_tokens(kind);
    EXPECT_LE(largest_difference(logits_of(*transformed, tokens), logits_of(*changed, tokens)), 1e-6);
    for (const auto& halving : halvings) EXPECT_EQ(halving->whole + halving->by_rows, halving == halvings[0] ? 2 : 1);
    // A table is looked up by rows; only its use as the head needs the whole.
    EXPECT_EQ(halvings[0]->by_rows, 1);
  }
}

TEST(Slots, DeltaComesBeforeTheTransform) {
  const auto model = golden_model("gemma3");
  Projection& table = model->projection("embed_tokens.weight");
  const at::Tensor wanted = (table.weight + 0.25) * 0.5;
  table.weight_delta = std::make_shared<Adding>();
  table.weight_transform = std::make_shared<Halving>();
  const at::Tensor rows = golden_tokens("gemma3").narrow(0, 0, 4);
  EXPECT_TRUE(table.effective_weight().equal(wanted));
  EXPECT_TRUE(table.effective_rows(rows).equal(wanted.index_select(0, rows)));
}

TEST(Slots, GradientsPassThroughTheTransformOfTheHead) {
  const auto model = golden_model("e2b");
  at::Tensor weight = model->head().weight.set_requires_grad(true);
  const testing::Expected expected("e2b");
  const auto gradient = [&] {
    weight.mutable_grad() = at::Tensor();
    const at::Tensor hidden = at::ones_like(weight.detach()).narrow(0, 0, 48);
    torch::autograd::backward({cross_entropy_sum(*model, hidden, expected["targets"])}, {});
    return weight.grad();
  };
  model->projection("embed_tokens.weight").weight_transform = std::make_shared<Halving>();
  const at::Tensor transformed = gradient();
  {
    const at::NoGradGuard no_gradients;
    weight.mul_(0.5);
  }
  model->projection("embed_tokens.weight").weight_transform = nullptr;
  EXPECT_LE(largest_difference(transformed, gradient() * 0.5), 1e-6);
}

// Not a factor: that of values would vanish in the norm after attention.
class Magnitude final : public ActivationTransform {
 public:
  at::Tensor apply(const at::Tensor& activation) override { return activation.abs(); }
};

TEST(Slots, KeyAndValueTransformsActOnWhatIsCachedAndShared) {
  const at::NoGradGuard no_gradients;
  const at::Tensor tokens = golden_tokens("e2b");
  const std::vector<int32_t> list{tokens.const_data_ptr<int64_t>(), tokens.const_data_ptr<int64_t>() + tokens.numel()};
  const auto model = golden_model("e2b");
  const at::Tensor plain = logits_of(*model, tokens);
  for (const bool of_keys : {true, false}) {
    for (const LayerConfig& layer : model->config().layers) {
      const auto transform = layer.key_value_donor ? nullptr : std::make_shared<Magnitude>();
      model->key_transform(layer.index) = of_keys ? transform : nullptr;
      model->value_transform(layer.index) = of_keys ? nullptr : transform;
    }
    const at::Tensor changed = logits_of(*model, tokens);
    EXPECT_GT(largest_difference(changed, plain), 1e-2);
    const auto session = make_language_model(*model)->start();
    session->append({list.data(), 30});
    const auto last = session->append({list.data() + 30, 18});
    const at::Tensor decoded = at::from_blob(const_cast<float*>(last.data()), {static_cast<int64_t>(last.size())});
    EXPECT_LE(largest_difference(decoded, changed[47]), 1e-4);
  }
}

TEST(Slots, ActivationTransformsEncloseAProjection) {
  const at::NoGradGuard no_gradients;
  const auto model = golden_model("26b");
  const at::Tensor tokens = golden_tokens("26b");
  const at::Tensor plain = logits_of(*model, tokens);
  for (const WeightSpec& spec : model->weights().weights()) {
    if (!is_matrix(spec.role) || spec.role == WeightRole::TokenEmbedding) continue;
    model->projection(spec.name).input_transform = std::make_shared<Scaling>(4);
    model->projection(spec.name).output_transform = std::make_shared<Scaling>(0.25);
  }
  EXPECT_TRUE(logits_of(*model, tokens).equal(plain));  // powers of two commute with rounding
}

TEST(Slots, AnUnknownNameIsAnError) {
  const auto model = golden_model("gemma3");
  EXPECT_THROW(model->projection("layers.0.input_layernorm.weight"), Error);
  EXPECT_THROW(model->projection("layers.99.mlp.up_proj.weight"), Error);
  EXPECT_THROW(model->parameter("layers.99.mlp.up_proj.weight"), Error);
}

}  // namespace
}  // namespace qat
