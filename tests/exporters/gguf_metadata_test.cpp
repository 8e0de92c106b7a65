#include "exporters/gguf_metadata.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "exporters/ollama_modelfile.h"
#include "small_model.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using test::SmallModel;
using testing::expect_error;
using testing::TemporaryFolder;

constexpr int64_t kVocabulary = 400;

GgufMetadata exported_metadata(SmallModel& model) {
  const TemporaryFolder folder;
  model.inputs().output = folder / "model.gguf";
  export_gguf(model.inputs());
  return GgufFile(folder / "model.gguf").metadata();
}

TEST(GgufMetadataOfAModel, DescribesGemma4) {
  SmallModel model(test::small_gemma4(kVocabulary), "q4_0");
  model.inputs().sampling = {64, 0.95f, 1.0f};
  const GgufMetadata metadata = exported_metadata(model);
  EXPECT_EQ(metadata.text("general.architecture"), "gemma4");
  EXPECT_EQ(metadata.text("general.name"), "small");
  EXPECT_EQ(metadata.integer("general.file_type"), 2);
  EXPECT_EQ(metadata.integer("general.quantization_version"), 2);
  EXPECT_EQ(metadata.integer("general.sampling.top_k"), 64);
  EXPECT_FALSE(metadata.contains("general.alignment"));
  EXPECT_EQ(metadata.integer("gemma4.block_count"), 6);
  EXPECT_EQ(metadata.integer("gemma4.context_length"), 256);
  EXPECT_EQ(metadata.integer("gemma4.embedding_length"), 64);
  EXPECT_EQ(metadata.integers("gemma4.feed_forward_length"), (std::vector<int64_t>{96, 96, 96, 96, 192, 192}));
  EXPECT_EQ(metadata.integer("gemma4.attention.head_count"), 2);
  EXPECT_EQ(metadata.integer("gemma4.attention.head_count_kv"), 1);
  EXPECT_EQ(metadata.integer("gemma4.attention.key_length"), 64);
  EXPECT_EQ(metadata.integer("gemma4.attention.value_length_swa"), 32);
  EXPECT_EQ(metadata.integers("gemma4.attention.sliding_window_pattern"), (std::vector<int64_t>{1, 0, 1, 0, 1, 0}));
  EXPECT_EQ(metadata.integer("gemma4.attention.sliding_window"), 16);
  EXPECT_EQ(metadata.integer("gemma4.attention.shared_kv_layers"), 2);
  EXPECT_EQ(metadata.integer("gemma4.embedding_length_per_layer_input"), 32);
  EXPECT_EQ(metadata.integer("gemma4.rope.dimension_count"), 64);
  EXPECT_EQ(metadata.integer("gemma4.rope.dimension_count_swa"), 32);
  EXPECT_EQ(metadata.number("gemma4.rope.freq_base"), 1e6);
  EXPECT_EQ(metadata.number("gemma4.rope.freq_base_swa"), 1e4);
  EXPECT_EQ(metadata.number("gemma4.final_logit_softcapping"), 30.0);
  EXPECT_FALSE(metadata.contains("gemma4.expert_count"));
}

TEST(GgufMetadataOfAModel, DescribesGemma3) {
  SmallModel model(test::small_gemma3(kVocabulary), "bf16");
  const GgufMetadata metadata = exported_metadata(model);
  EXPECT_EQ(metadata.text("general.architecture"), "gemma3");
  EXPECT_EQ(metadata.integer("general.file_type"), 32);
  EXPECT_EQ(metadata.integer("gemma3.block_count"), 7);
  EXPECT_EQ(metadata.integer("gemma3.attention.key_length"), 32);
  EXPECT_EQ(metadata.integer("gemma3.attention.sliding_window"), 16);
  EXPECT_EQ(metadata.number("gemma3.rope.freq_base"), 1e6);
  EXPECT_FALSE(metadata.contains("gemma3.rope.scaling.type"));
  EXPECT_FALSE(metadata.contains("gemma3.final_logit_softcapping"));
  EXPECT_EQ(metadata.text("tokenizer.ggml.model"), "llama");
}

TEST(GgufMetadataOfAModel, ScaledRotaryEmbeddingOfGemma3) {
  Gemma4Config config = test::small_gemma3(kVocabulary);
  config.layers[5].rope.factor = 8;
  SmallModel model(config, "bf16");
  const GgufMetadata metadata = exported_metadata(model);
  EXPECT_EQ(metadata.text("gemma3.rope.scaling.type"), "linear");
  EXPECT_EQ(metadata.number("gemma3.rope.scaling.factor"), 8.0);
}

TEST(GgufMetadataOfAModel, RefusesWhatLlamaCppWouldComputeDifferently) {
  const auto expect_inexpressible = [](Gemma4Config config, const auto& change, const std::string& part) {
    EXPECT_NO_THROW(check_gguf_can_express(config));
    change(config);
    expect_error([&] { check_gguf_can_express(config); }, {"cannot express", part});
  };
  const Gemma4Config gemma4 = test::small_gemma4(kVocabulary);
  const Gemma4Config gemma3 = test::small_gemma3(kVocabulary);
  expect_inexpressible(
      gemma4, [](Gemma4Config& c) { c.layers[4].key_value_donor = 0; }, "keys of layer 2");
  expect_inexpressible(
      gemma4, [](Gemma4Config& c) { c.layers[0].key_value_donor = 1; }, "layer");
  expect_inexpressible(
      gemma4, [](Gemma4Config& c) { c.attention_scale = 0.5; }, "attention scale");
  expect_inexpressible(
      gemma4, [](Gemma4Config& c) { c.layers[3].rope.theta = 5; }, "layers 1 and 3");
  expect_inexpressible(
      gemma4, [](Gemma4Config& c) { c.layers[3].rope.factor = 8; }, "layers 1 and 3");
  expect_inexpressible(
      gemma3,
      [](Gemma4Config& c) {
        std::swap(c.layers[4].type, c.layers[5].type);
        c.layers[4].rope.theta = 1e6;
        c.layers[5].rope.theta = 1e4;
      },
      "layer 4");
  expect_inexpressible(
      gemma3, [](Gemma4Config& c) { c.attention_scale = 1.0; }, "attention scale");
  expect_inexpressible(
      gemma3, [](Gemma4Config& c) { c.final_logit_softcap = 30; }, "soft-cap");
}

TEST(GgufVocabularyOfAModel, Gemma4KeepsMergesAndTypes) {
  const Tokenizer& tokenizer = testing::small_tokenizer();
  const int64_t rows = tokenizer.vocabulary_size() + 3;
  SmallModel model(test::small_gemma4(rows), "bf16");
  const GgufMetadata metadata = exported_metadata(model);
  EXPECT_EQ(metadata.text("tokenizer.ggml.model"), "gemma4");
  const auto& pieces = metadata.texts("tokenizer.ggml.tokens");
  const auto types = metadata.integers("tokenizer.ggml.token_type");
  ASSERT_EQ(static_cast<int64_t>(pieces.size()), rows);
  ASSERT_EQ(static_cast<int64_t>(types.size()), rows);
  EXPECT_EQ(pieces[static_cast<size_t>(tokenizer.byte_ids()[65])], "<0x41>");
  EXPECT_EQ(types[static_cast<size_t>(tokenizer.byte_ids()[65])], 6);
  EXPECT_EQ(types[static_cast<size_t>(tokenizer.require_id("<bos>"))], 3);
  EXPECT_EQ(pieces.back(), "[PAD" + std::to_string(rows - 1) + "]");
  EXPECT_EQ(types.back(), 5);
  EXPECT_EQ(metadata.texts("tokenizer.ggml.merges").size(), tokenizer.merges().size());
  const Merge& merge = tokenizer.merges()[3];
  EXPECT_EQ(metadata.texts("tokenizer.ggml.merges")[3],
            tokenizer.piece(merge.left) + " " + tokenizer.piece(merge.right));
  EXPECT_EQ(metadata.integer("tokenizer.ggml.bos_token_id"), 2);
  EXPECT_TRUE(metadata.boolean("tokenizer.ggml.add_bos_token"));
  EXPECT_FALSE(metadata.boolean("tokenizer.ggml.add_space_prefix"));
  EXPECT_EQ(metadata.text("tokenizer.chat_template"), "{{ bos_token }}");
  EXPECT_FALSE(metadata.contains("tokenizer.ggml.suppress_tokens"));
}

TEST(GgufVocabularyOfAModel, DelimitersThatMustBePrintedAreUserDefined) {
  const Tokenizer& tokenizer = testing::small_tokenizer();
  const GgufVocabulary vocabulary =
      make_gguf_vocabulary(tokenizer, test::small_gemma4(tokenizer.vocabulary_size()), "");
  int checked = 0;
  for (const AddedToken& token : tokenizer.added_tokens()) {
    const bool printed =
        token.content.find("channel") != std::string::npos || token.content.find("tool_") != std::string::npos;
    if (!token.special) continue;
    EXPECT_EQ(vocabulary.types[static_cast<size_t>(token.id)], printed || token.content == "<|\"|>" ? 4 : 3)
        << token.content;
    ++checked;
  }
  EXPECT_GT(checked, 3);
}

TEST(GgufVocabularyOfAModel, Gemma3ScoresAreNegatedRanks) {
  const Tokenizer& tokenizer = testing::small_tokenizer();
  const GgufVocabulary vocabulary =
      make_gguf_vocabulary(tokenizer, test::small_gemma3(tokenizer.vocabulary_size()), "");
  const auto score_of_merge = [&](const Merge& merge) {
    const auto id = tokenizer.require_id(tokenizer.piece(merge.left) + tokenizer.piece(merge.right));
    return vocabulary.scores[static_cast<size_t>(id)];
  };
  const auto merges = tokenizer.merges();
  EXPECT_EQ(score_of_merge(merges[0]), 0.0f);
  EXPECT_GT(score_of_merge(merges[1]), score_of_merge(merges.back()));
  EXPECT_LT(vocabulary.scores[static_cast<size_t>(tokenizer.byte_ids()[0])], score_of_merge(merges.back()));
  EXPECT_EQ(vocabulary.types[static_cast<size_t>(*vocabulary.unknown)], 2);
  EXPECT_TRUE(vocabulary.merges.empty());
}

TEST(OllamaModelfile, NamesTheFileAndStopsAtTheEndOfATurn) {
  const std::string gemma4 = ollama_modelfile("e2b.gguf", ChatTemplateKind::Gemma4Small);
  EXPECT_EQ(gemma4.rfind("FROM ./e2b.gguf\n", 0), 0u);
  EXPECT_NE(gemma4.find("PARAMETER stop \"<turn|>\""), std::string::npos);
  EXPECT_NE(gemma4.find("<|turn>model\n{{ end }}"), std::string::npos);
  EXPECT_NE(ollama_modelfile("x", ChatTemplateKind::Gemma4Large).find("<|turn>model\n<|channel>thought\n<channel|>"),
            std::string::npos);
  const std::string gemma3 = ollama_modelfile("x.gguf", ChatTemplateKind::Gemma3);
  EXPECT_NE(gemma3.find("PARAMETER stop \"<end_of_turn>\""), std::string::npos);
  EXPECT_EQ(gemma3.find("<start_of_turn>system"), std::string::npos);
  EXPECT_EQ(ollama_modelfile("x.gguf", std::nullopt).find("PARAMETER"), std::string::npos);
}

}  // namespace
}  // namespace qat
