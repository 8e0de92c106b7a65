// The forward pass against transformers on tiny models of every kind.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>

#include "model/golden_models.h"

namespace qat {
namespace {

using testing::Expected;
using testing::golden_model;
using testing::largest_difference;
using testing::relative_difference;

class ForwardGolden : public testing::GoldenTest {};

at::Tensor all_logits(const Gemma4Model& model, const at::Tensor& tokens) {
  const at::NoGradGuard no_gradients;
  return model.logits(model.hidden_states(PackedTokens::single(tokens)));
}

TEST_P(ForwardGolden, LogitsEqualThoseOfTransformersInFp32) {
  const Expected expected(kind());
  const double difference =
      largest_difference(all_logits(*golden_model(kind()), expected["tokens"]), expected["logits"]);
  RecordProperty("largest_difference", std::to_string(difference));
  EXPECT_LE(difference, 1e-4);
}

// Rounding differs in places, so two BF16 runs differ about as much as each differs from FP32.
TEST_P(ForwardGolden, LogitsInBf16AreAsFarAsRoundingTakesThem) {
  const Expected expected(kind());
  const at::Tensor logits = all_logits(*golden_model(kind(), at::kBFloat16), expected["tokens"]);
  const double noise = relative_difference(expected["logits_bfloat16"], expected["logits"]);
  RecordProperty("noise", std::to_string(noise));
  RecordProperty("to_bfloat16", std::to_string(relative_difference(logits, expected["logits_bfloat16"])));
  EXPECT_LE(relative_difference(logits, expected["logits"]), 1.5 * noise);
  EXPECT_LE(relative_difference(logits, expected["logits_bfloat16"]), 1.5 * noise);
}

TEST_P(ForwardGolden, PackedDocumentsEqualSeparateRuns) {
  const at::NoGradGuard no_gradients;
  const Expected expected(kind());
  const auto model = golden_model(kind());
  const at::Tensor tokens = expected["tokens"];
  const PackedTokens packed{tokens, {0, 5, 40, 41, 48}};
  const at::Tensor together = model->hidden_states(packed);
  for (size_t d = 0; d + 1 < packed.document_starts.size(); ++d) {
    const int64_t start = packed.document_starts[d];
    const int64_t length = packed.document_starts[d + 1] - start;
    const at::Tensor alone = model->hidden_states(PackedTokens::single(tokens.narrow(0, start, length)));
    EXPECT_LE(largest_difference(together.narrow(0, start, length), alone), 2e-5) << "document " << d;
  }
}

TEST_P(ForwardGolden, RunsAreBitwiseEqual) {
  const Expected expected(kind());
  const auto model = golden_model(kind());
  EXPECT_TRUE(all_logits(*model, expected["tokens"]).equal(all_logits(*model, expected["tokens"])));
}

TEST_P(ForwardGolden, LayersOneByOneEqualTheWhole) {
  const at::NoGradGuard no_gradients;
  const auto model = golden_model(kind());
  const PackedTokens batch = PackedTokens::single(Expected(kind())["tokens"]);
  LayerInputs state = model->embed(batch);
  for (int64_t layer = 0; layer < model->config().layer_count(); ++layer) model->run_layer(layer, state, batch);
  EXPECT_TRUE(model->final_norm(state.hidden).equal(model->hidden_states(batch)));
  for (const LayerConfig& layer : model->config().layers) {
    if (!layer.key_value_donor) continue;
    EXPECT_TRUE(state.donated.at(static_cast<size_t>(*layer.key_value_donor)).has_value());
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, ForwardGolden, ::testing::ValuesIn(testing::kKinds), testing::name_of_kind);

}  // namespace
}  // namespace qat
