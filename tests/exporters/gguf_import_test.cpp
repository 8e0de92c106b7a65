// A GGUF file becomes a checkpoint that exports as the file that it came from, and what is not kept is counted.
#include "exporters/gguf_import.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "exporters/gguf_decoder.h"
#include "gguf_import_fixture.h"

namespace qat {
namespace {

using test::GgufCopy;
namespace fs = std::filesystem;

using GgufImport = test::GgufImportTest;

const char* const kUp = "blk.0.ffn_up.weight";

const ImportedTensor& find(const GgufImportReport& report, const std::string& name) {
  const auto found = std::ranges::find(report.tensors, name, &ImportedTensor::name);
  QAT_CHECK(found != report.tensors.end());
  return *found;
}

TEST_F(GgufImport, EveryKindIsExportedAsTheFileThatItCameFrom) {
  SCOPED_TRACE("seed " + std::to_string(seed_));
  for (const std::string kind : {"shared", "dense", "value_is_key", "experts", "gemma3"}) {
    SCOPED_TRACE(kind);
    for (const auto& entry : fs::directory_iterator(folder_.path())) fs::remove_all(entry.path());
    make_model(kind == "gemma3" ? test::small_gemma3_json(576, /*tied=*/false) : testing::tiny_config_json(kind));
    quantize(QuantPlan::load(kind == "dense" ? "q4_0" : "q4_0-q8-tables"));
    export_from("trained", "first.gguf");
    const GgufImportReport report = import();
    export_from("imported", "second.gguf");
    EXPECT_TRUE(read("first.gguf") == read("second.gguf"));
    for (const ImportedTensor& tensor : report.tensors) EXPECT_EQ(tensor.changed, 0) << tensor.name;
    EXPECT_TRUE(report.redundant.empty());
    EXPECT_EQ(report.token_difference, std::nullopt);

    const GgufFile file(folder_ / "first.gguf");
    const ModelFolder imported(folder_ / "imported");
    EXPECT_EQ(report.tensors.size(), imported.table().weights().size());
    for (const WeightSpec& weight : imported.table().weights()) {
      const GgufTensor& tensor = *file.find(weight.gguf_name);
      const WeightPlan& rule = imported.plan()->of(weight.name);
      EXPECT_EQ(rule.scheme, tensor.scheme) << weight.name;
      EXPECT_EQ(rule.frozen, is_table(weight.role) && tensor.scheme == Scheme::Q8_0) << weight.name;
      const DecodedBlocks decoded = decode_for_verification(tensor.scheme, tensor.bytes);
      const float offset = kind == "gemma3" && weight.role == WeightRole::Norm ? 1.0f : 0.0f;
      const auto masters = values_of(imported, weight);
      for (size_t i = 0; i < masters.size(); ++i) {
        ASSERT_EQ(masters[i], to_bfloat16(decoded.values[i] - offset)) << weight.name << " at " << i;
      }
      if (tensor.scheme != Scheme::Q4_0) continue;
      EXPECT_TRUE(std::ranges::equal(std::as_bytes(imported.stored_scales(weight.name)), decoded.scales));
    }
  }
}

// The search finds other scales for what it has decoded in a part of the blocks.
TEST_F(GgufImport, BlocksOfQ6KThatComeOutOtherwiseAreCounted) {
  SCOPED_TRACE("seed " + std::to_string(seed_));
  make_model(testing::tiny_config_json("shared"));
  QuantPlan plan = QuantPlan::load("q4_0-q8-tables");
  plan.rules[WeightRole::PerLayerEmbedding].scheme = Scheme::Q6_K;
  quantize(plan);
  export_from("trained", "first.gguf");
  const GgufImportReport report = import();
  export_from("imported", "second.gguf");
  const GgufFile first(folder_ / "first.gguf");
  const GgufFile second(folder_ / "second.gguf");
  for (const GgufTensor& tensor : first.tensors()) {
    const GgufTensor& again = *second.find(tensor.name);
    ASSERT_EQ(tensor.scheme, again.scheme);
    if (tensor.name != "per_layer_token_embd.weight") {
      EXPECT_TRUE(std::ranges::equal(tensor.bytes, again.bytes)) << tensor.name;
      continue;
    }
    const ImportedTensor& counted = find(report, "embed_tokens_per_layer.weight");
    int64_t changed = 0;
    for (size_t i = 0; i < tensor.bytes.size(); i += 210) {
      changed += std::memcmp(tensor.bytes.data() + i, again.bytes.data() + i, 210) != 0 ? 1 : 0;
    }
    EXPECT_EQ(counted.scheme, Scheme::Q6_K);
    EXPECT_EQ(counted.blocks, 576);
    EXPECT_EQ(counted.changed, changed);
    EXPECT_LT(changed, counted.blocks);
    const auto values = decode_for_verification(Scheme::Q6_K, tensor.bytes).values;
    const auto others = decode_for_verification(Scheme::Q6_K, again.bytes).values;
    double squares = 0, moves = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      squares += std::pow(static_cast<double>(values[i]), 2);
      moves += std::pow(static_cast<double>(values[i]) - static_cast<double>(others[i]), 2);
    }
    EXPECT_NEAR(counted.moved, std::sqrt(moves / squares), 1e-9);
  }
}

TEST_F(GgufImport, ScalesAndNumbersThatNoMasterGivesAgainAreCounted) {
  make_file();
  GgufCopy copy(folder_ / "first.gguf");
  auto& blocks = copy.find(kUp).bytes;
  blocks[1] = blocks[0] = std::byte{0};                         // a scale of 0 over codes of other values
  std::fill_n(blocks.begin() + 18 + 2, 16, std::byte{0x88});    // zeros
  blocks[18] = std::byte{0}, blocks[18 + 1] = std::byte{0x80};  // under -0, as ggml writes them
  blocks[36] = std::byte{1}, blocks[36 + 1] = std::byte{0};     // the smallest scale
  const float third = 1.0f / 3.0f;
  std::memcpy(copy.find("output_norm.weight").bytes.data() + 8, &third, sizeof(third));
  copy.write(folder_ / "changed.gguf");
  const GgufImportReport report = import("changed.gguf");
  for (const ImportedTensor& tensor : report.tensors) {
    const bool expected = tensor.name == "layers.0.mlp.up_proj.weight" || tensor.name == "norm.weight";
    EXPECT_EQ(tensor.changed, expected ? 1 : 0) << tensor.name;
  }
  EXPECT_EQ(find(report, "norm.weight").blocks, 64);
  export_from("imported", "second.gguf");
  const auto again = decode_for_verification(Scheme::Q4_0, GgufCopy(folder_ / "second.gguf").find(kUp).bytes);
  EXPECT_EQ(again.values, decode_for_verification(Scheme::Q4_0, blocks).values);
}

TEST_F(GgufImport, WhatNoModelReadsIsLeftOutAndOtherTokensAreTold) {
  make_file();
  GgufCopy copy(folder_ / "first.gguf");
  copy.tensors.push_back({"blk.2.attn_k_norm.weight", {32}, Scheme::F32, std::vector<std::byte>(128)});
  auto& pieces = std::get<std::vector<std::string>>(std::get<GgufArray>(copy.value("tokenizer.ggml.tokens")));
  ASSERT_EQ(pieces[416], "▁▁");
  pieces[416] = "  ";  // as llama.cpp's converter writes some
  pieces[417] = "other";
  copy.write(folder_ / "changed.gguf");
  auto config = testing::tiny_config_json("shared");
  config["quantization_config"] = {{"quant_method", "gemma"}};
  write_file(folder_ / "like/config.json", config.dump());
  const GgufImportReport report = import("changed.gguf");
  EXPECT_EQ(report.redundant, std::vector<std::string>{"blk.2.attn_k_norm.weight"});
  ASSERT_TRUE(report.token_difference.has_value());
  EXPECT_NE(report.token_difference->find("token 417 is \"other\", tokenizer.json has \"▁w\""), std::string::npos);
  EXPECT_EQ(read("imported/config.json").find("quantization_config"), std::string::npos);
  export_from("imported", "second.gguf");
  EXPECT_TRUE(read("first.gguf") == read("second.gguf"));
}

}  // namespace
}  // namespace qat
