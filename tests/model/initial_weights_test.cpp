#include <ATen/ops/empty.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/golden_models.h"

namespace qat {
namespace {

TEST(InitialWeights, DependOnTheSeedOnly) {
  const auto config = Gemma4Config::load(testing::golden_folder("26b"));
  Gemma4Model first(config, at::kFloat);
  Gemma4Model second(config, at::kFloat);
  Gemma4Model other(config, at::kFloat);
  initialize_weights(first, 5);
  initialize_weights(second, 5);
  initialize_weights(other, 6);
  for (const auto& [name, weight] : first.parameters()) {
    EXPECT_TRUE(weight.equal(second.parameter(name))) << name;
    const bool random = is_matrix(first.weights().find(name)->role);
    EXPECT_EQ(weight.equal(other.parameter(name)), !random) << name;
  }
}

TEST(InitialWeights, AreThoseOfTransformers) {
  for (const char* kind : {"e2b", "26b", "gemma3"}) {
    Gemma4Model model(Gemma4Config::load(testing::golden_folder(kind)), at::kFloat);
    initialize_weights(model, 1);
    for (const auto& [name, weight] : model.parameters()) {
      const WeightSpec& spec = *model.weights().find(name);
      if (is_matrix(spec.role)) {
        EXPECT_NEAR(weight.mean().item<float>(), 0, 4e-3) << name;
        EXPECT_NEAR(weight.std().item<float>(), 0.02, 3e-3) << name;
      } else {
        const float wanted = spec.role == WeightRole::Norm && model.config().family == Family::Gemma3 ? 0 : 1;
        EXPECT_TRUE(weight.eq(wanted).all().item<bool>()) << name;
      }
    }
    EXPECT_EQ(model.parameter("embed_tokens.weight")[0].abs().max().item<float>(), 0);
  }
}

// In BF16 the embedding scale is the square root rounded to BF16 (gemma4_architecture.md 2.1): 39.25 for 1536.
TEST(Embedding, ScaleIsRoundedToTheWeightsType) {
  const auto config = Gemma4Config::parse(
      nlohmann::json::parse(
          R"({"model_type": "gemma4_text", "hidden_size": 1536, "vocab_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8, "global_head_dim": 8, "intermediate_size": 8,
        "sliding_window": 4, "layer_types": ["full_attention"]})"),
      "test");
  for (const auto& [dtype, scale] : {std::pair{at::kBFloat16, 39.25f}, std::pair{at::kFloat, 39.191835f}}) {
    Gemma4Model model(config, dtype);
    initialize_weights(model, 1);
    model.parameter("embed_tokens.weight")[3].fill_(1);
    const at::Tensor tokens = at::empty({1}, at::TensorOptions(at::kLong)).fill_(3);
    const at::Tensor hidden = model.embed(PackedTokens::single(tokens)).hidden;
    EXPECT_EQ(hidden.scalar_type(), dtype);
    EXPECT_FLOAT_EQ(hidden[0][0].item<float>(), scale);
  }
}

TEST(Embedding, RefusesTokensOutsideTheVocabulary) {
  const auto model = testing::golden_model("gemma3");
  for (const int64_t token : {int64_t{96}, int64_t{-1}}) {
    const at::Tensor tokens = at::empty({2}, at::TensorOptions(at::kLong)).fill_(token);
    try {
      model->embed(PackedTokens::single(tokens));
      ADD_FAILURE() << "accepted token " << token;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("token " + std::to_string(token)), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("96"), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace qat
