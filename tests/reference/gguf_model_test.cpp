#include "reference/gguf_model.h"

#include <gtest/gtest.h>

#include "reference/random_gguf.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using testing::expect_error;
using testing::RandomGguf;

class GgufModelTest : public ::testing::Test {
 protected:
  GgufFile file(const RandomGguf& wanted) {
    const auto path = folder_ / ("model" + std::to_string(files_++) + ".gguf");
    testing::write_random_gguf(path, wanted);
    return GgufFile(path);
  }
  void expect_fault(const RandomGguf& wanted, std::initializer_list<std::string> parts) {
    const GgufFile broken = file(wanted);
    expect_error([&] { GgufModel model(broken); }, parts);
  }

 private:
  testing::TemporaryFolder folder_;
  int files_ = 0;
};

void expect_equal(const LayerConfig& found, const LayerConfig& wanted) {
  SCOPED_TRACE(wanted.index);
  EXPECT_EQ(found.type, wanted.type);
  EXPECT_EQ(found.window, wanted.window);
  EXPECT_EQ(found.heads, wanted.heads);
  EXPECT_EQ(found.key_value_heads, wanted.key_value_heads);
  EXPECT_EQ(found.head_dim, wanted.head_dim);
  EXPECT_EQ(found.intermediate_size, wanted.intermediate_size);
  EXPECT_DOUBLE_EQ(found.rope.theta, wanted.rope.theta);
  EXPECT_EQ(found.rope.head_dim, wanted.rope.head_dim);
  EXPECT_EQ(found.rope.rotated_pairs, wanted.rope.rotated_pairs);
  EXPECT_EQ(found.rope.factor, wanted.rope.factor);
  EXPECT_EQ(found.value_is_key, wanted.value_is_key);
  EXPECT_EQ(found.key_value_donor, wanted.key_value_donor);
  EXPECT_EQ(found.has_experts, wanted.has_experts);
}

TEST_F(GgufModelTest, ConfigHoldsWhatTheMetadataDescribes) {
  for (const RandomGguf& wanted : {RandomGguf{}, RandomGguf{.experts = true}, RandomGguf{.gemma3 = true}}) {
    const GgufFile written = file(wanted);
    const Gemma4Config found = config_from_gguf(written);
    const Gemma4Config config = testing::config_of(wanted);
    EXPECT_EQ(found.family, config.family);
    EXPECT_EQ(found.hidden_size, config.hidden_size);
    EXPECT_EQ(found.vocabulary_size, config.vocabulary_size);
    EXPECT_EQ(found.max_positions, config.max_positions);
    EXPECT_EQ(found.per_layer_input_size, config.per_layer_input_size);
    EXPECT_NEAR(found.norm_epsilon, config.norm_epsilon, 1e-12);
    EXPECT_EQ(found.norm_offset, 0);
    EXPECT_EQ(found.attention_scale, config.attention_scale);
    EXPECT_EQ(found.final_logit_softcap, config.final_logit_softcap);
    EXPECT_EQ(found.value_norm, config.value_norm);
    EXPECT_EQ(found.has_layer_scalar, config.has_layer_scalar);
    EXPECT_TRUE(found.tied_head);
    EXPECT_EQ(found.experts, config.experts);
    EXPECT_EQ(found.experts_per_token, config.experts_per_token);
    EXPECT_EQ(found.expert_intermediate_size, config.expert_intermediate_size);
    ASSERT_EQ(found.layer_count(), config.layer_count());
    for (size_t i = 0; i < config.layers.size(); ++i) expect_equal(found.layers[i], config.layers[i]);
  }
}

TEST_F(GgufModelTest, WeightsAreTheBytesOfTheFile) {
  const GgufFile written = file({});
  const GgufModel model(written);
  const WeightView& view = model.weight("layers.1.self_attn.q_proj.weight");
  EXPECT_EQ(view.scheme->id, Scheme::Q4_0);
  EXPECT_EQ(view.blocks.data(), written.find("blk.1.attn_q.weight")->bytes.data());
  EXPECT_EQ(view.rows(), 4 * 64);
  EXPECT_EQ(view.columns(), 64);
  EXPECT_EQ(model.vector("norm.weight").size(), 64u);
}

TEST_F(GgufModelTest, MissingTensorIsNamed) {
  expect_fault({.left_out = {"blk.1.ffn_down.weight"}}, {"blk.1.ffn_down.weight", "missing"});
  expect_fault({.left_out = {"output_norm.weight"}}, {"output_norm.weight", "missing"});
  expect_fault({.left_out = {"rope_freqs.weight"}}, {"rope_freqs.weight", "missing"});
  expect_fault({.left_out = {"blk.0.attn_v.weight"}}, {"blk.0.attn_v.weight", "missing"});
  expect_fault({.experts = true, .left_out = {"blk.0.ffn_gate_inp.scale"}}, {"blk.0.ffn_gate_inp.scale"});
}

TEST_F(GgufModelTest, WrongShapeIsNamedWithBothShapes) {
  expect_fault({.bent = "blk.0.attn_k.weight"}, {"blk.0.attn_k.weight", "[65, 64]", "[64, 64]"});
}

TEST_F(GgufModelTest, MissingKeyIsNamed) {
  for (const char* key : {"block_count", "embedding_length", "feed_forward_length", "attention.head_count",
                          "attention.sliding_window_pattern"}) {
    expect_fault({.left_out = {std::string("gemma4.") + key}}, {std::string("gemma4.") + key});
  }
  expect_fault({.left_out = {"general.architecture"}}, {"general.architecture"});
  expect_fault({.left_out = {"tokenizer.ggml.tokens"}}, {"tokenizer.ggml.tokens"});
}

TEST_F(GgufModelTest, OtherArchitecturesAreRefused) {
  testing::TemporaryFolder folder;
  GgufWriter writer(folder / "other.gguf");
  writer.add("general.architecture", std::string("llama"));
  writer.begin_data();
  writer.commit();
  const GgufFile other(folder / "other.gguf");
  expect_error([&] { config_from_gguf(other); }, {"llama", "gemma4, gemma3"});
}

}  // namespace
}  // namespace qat
