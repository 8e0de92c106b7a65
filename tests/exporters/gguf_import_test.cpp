// A GGUF file becomes a checkpoint that exports as the file that it came from, and what is not kept is counted or
// refused.
#include "exporters/gguf_import.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "core/mapped_file.h"
#include "exporters/export_checkpoint.h"
#include "exporters/gguf_decoder.h"
#include "gguf_copy.h"
#include "quant/block_scales.h"
#include "small_model.h"
#include "support/expect_error.h"
#include "support/fresh_seed.h"
#include "support/temporary_folder.h"
#include "support/tiny_model_folder.h"

namespace qat {
namespace {

using test::GgufCopy;
using testing::expect_error;
namespace fs = std::filesystem;

const char* const kUp = "blk.0.ffn_up.weight";

class GgufImport : public ::testing::Test {
 protected:
  // A folder with random weights, and `like` that has its small files alone.
  void make_model(const nlohmann::json& config) {
    for (const char* name : {"base", "like"}) {
      fs::create_directories(folder_ / name);
      write_file(folder_ / name / "config.json", config.dump());
      fs::copy_file(fs::path(QAT_SOURCE_DIR) / "tests/golden/data/tokenizer.json", folder_ / name / "tokenizer.json");
    }
    testing::write_random_weights(folder_ / "base", seed_);
  }

  // A checkpoint of the model under a plan, as training leaves it: Q4_0 scales that no rule finds again.
  void quantize(const QuantPlan& named) {
    const ModelFolder base(folder_ / "base");
    ResolvedPlan plan = named.resolve(base.table());
    std::map<std::string, std::vector<Float16>> scales;
    CheckpointContents contents;
    for (const WeightSpec& weight : base.table().weights()) {
      WeightPlan& rule = plan.weights[weight.name];
      if (rule.scheme != Scheme::Q4_0) continue;
      rule.scales = ScaleSource::Stored;
      std::vector<Float16>& found = scales[weight.name];
      found.resize(static_cast<size_t>(weight.elements() / 32));
      rule_block_scales(values_of(base, weight), found);
      for (Float16& scale : found) {
        const double factor = (random_.below(2) == 0 ? 1 : -1) * (0.6 + 0.6 * random_.uniform());
        scale = to_float16(static_cast<float>(factor) * to_float(scale));
      }
      contents.stored_scales[weight.name] = found;
    }
    contents.base_folder = &base.path();
    contents.base_tensors = &base.tensors();
    contents.table = &base.table();
    contents.plan = &plan;
    contents.write_master = [&](const WeightSpec& weight, const auto& write) { write(values_of(base, weight)); };
    write_checkpoint(folder_ / "trained", contents);
  }

  // The whole way with the layout that most files have: first.gguf.
  void make_file(const std::string& kind = "shared", const std::string& plan = "q4_0-q8-tables") {
    make_model(testing::tiny_config_json(kind));
    quantize(QuantPlan::load(plan));
    export_from("trained", "first.gguf");
  }

  static std::span<const BFloat16> values_of(const ModelFolder& folder, const WeightSpec& weight) {
    const auto bytes = folder.masters().of(weight).bytes;
    return {reinterpret_cast<const BFloat16*>(bytes.data()), bytes.size() / sizeof(BFloat16)};
  }

  void export_from(const std::string& checkpoint, const std::string& file) const {
    export_checkpoint(ModelFolder(folder_ / checkpoint), folder_ / file, {"tiny", 1});
  }
  GgufImportReport import(const std::string& file = "first.gguf", const std::string& like = "like") const {
    return import_gguf(folder_ / file, folder_ / like, folder_ / "imported", [](const fs::path&) {});
  }
  std::string read(const std::string& file) const { return read_text_file(folder_ / file); }

  // Imports first.gguf with a change, which is refused; nothing is left behind.
  void expect_refused(const std::function<void(GgufCopy&)>& change, std::initializer_list<std::string> parts) {
    GgufCopy copy(folder_ / "first.gguf");
    change(copy);
    copy.write(folder_ / "changed.gguf");
    expect_error([&] { import("changed.gguf"); }, parts);
    expect_nothing_left();
  }
  void expect_nothing_left() const {
    for (const auto& entry : fs::directory_iterator(folder_.path())) {
      EXPECT_EQ(entry.path().string().find("imported"), std::string::npos) << entry.path();
    }
  }

  const uint64_t seed_ = testing::fresh_seed();
  SplitMix64 random_{seed_};
  testing::TemporaryFolder folder_;
};

const ImportedTensor& find(const GgufImportReport& report, const std::string& name) {
  const auto found = std::ranges::find(report.tensors, name, &ImportedTensor::name);
  QAT_CHECK(found != report.tensors.end());
  return *found;
}

nlohmann::json gemma3_json() {
  nlohmann::json types = nlohmann::json::array();
  for (int layer = 0; layer < 7; ++layer) types.push_back(layer == 5 ? "full_attention" : "sliding_attention");
  return {{"model_type", "gemma3_text"},
          {"vocab_size", 576},
          {"hidden_size", 64},
          {"num_hidden_layers", 7},
          {"num_attention_heads", 2},
          {"num_key_value_heads", 1},
          {"head_dim", 32},
          {"query_pre_attn_scalar", 32},
          {"intermediate_size", 96},
          {"sliding_window", 16},
          {"layer_types", types},
          {"tie_word_embeddings", false}};
}

TEST_F(GgufImport, EveryKindIsExportedAsTheFileThatItCameFrom) {
  SCOPED_TRACE("seed " + std::to_string(seed_));
  for (const std::string kind : {"shared", "dense", "value_is_key", "experts", "gemma3"}) {
    SCOPED_TRACE(kind);
    for (const auto& entry : fs::directory_iterator(folder_.path())) fs::remove_all(entry.path());
    make_model(kind == "gemma3" ? gemma3_json() : testing::tiny_config_json(kind));
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
  std::get<std::vector<std::string>>(std::get<GgufArray>(copy.value("tokenizer.ggml.tokens")))[7] = "other";
  copy.write(folder_ / "changed.gguf");
  auto config = testing::tiny_config_json("shared");
  config["quantization_config"] = {{"quant_method", "gemma"}};
  write_file(folder_ / "like/config.json", config.dump());
  const GgufImportReport report = import("changed.gguf");
  EXPECT_EQ(report.redundant, std::vector<std::string>{"blk.2.attn_k_norm.weight"});
  ASSERT_TRUE(report.token_difference.has_value());
  EXPECT_NE(report.token_difference->find("token 7 is \"other\", tokenizer.json has"), std::string::npos);
  EXPECT_EQ(read("imported/config.json").find("quantization_config"), std::string::npos);
  export_from("imported", "second.gguf");
  EXPECT_TRUE(read("first.gguf") == read("second.gguf"));
}

TEST_F(GgufImport, TensorsThatDoNotFitAreListedTogether) {
  make_file();
  expect_refused(
      [](GgufCopy& copy) {
        copy.drop("blk.1.attn_q.weight");
        copy.find("blk.3.ffn_norm.weight").name = "blk.3.ffn_norn.weight";
        copy.find(kUp).shape = {32, 192};
        copy.find("output_norm.weight").scheme = Scheme::Q8_0;
        copy.find("output_norm.weight").bytes.resize(68);
      },
      {"changed.gguf", "like/config.json", "5 faults", "blk.1.attn_q.weight is missing, wanted [128, 64]",
       "blk.3.ffn_norm.weight is missing, wanted [64]", "blk.3.ffn_norn.weight is f32 [64], which is no weight",
       "blk.0.ffn_up.weight is q4_0 [32, 192], wanted [96, 64]", "output_norm.weight is q8_0 [64], wanted F32"});
  expect_refused(
      [](GgufCopy& copy) {
        copy.find("token_embd.weight").shape[0] = 570;
        copy.find("token_embd.weight").bytes.resize(570 * 68);
      },
      {"token_embd.weight is q8_0 [570, 64], wanted [576, 64]", "set vocab_size to 570"});
}

TEST_F(GgufImport, AnotherModelOfTheSameShapesIsNamed) {
  make_file();
  expect_refused([](GgufCopy& copy) { copy.value("gemma4.rope.freq_base") = 5e5f; },
                 {"changed.gguf", "another model than", "layer 1: rotary base is 500000, wanted 1e+06"});
  expect_refused(
      [](GgufCopy& copy) {
        copy.value("gemma4.final_logit_softcapping") = 0.0f;
        copy.value("gemma4.attention.layer_norm_rms_epsilon") = 1e-5f;
      },
      {"soft-cap of logits is 0, wanted 30", "epsilon of norms is 1e-05, wanted 1e-06"});
  expect_refused([](GgufCopy& copy) { copy.value("gemma4.attention.sliding_window") = 32u; },
                 {"layer 0: sliding window is 32, wanted 16"});
  write_file(folder_ / "like/config.json", gemma3_json().dump());
  expect_refused([](GgufCopy&) {}, {"general.architecture is \"gemma4\"", "describes a gemma3 model"});
  write_file(folder_ / "like/config.json", testing::tiny_config_json("experts").dump());
  expect_refused([](GgufCopy&) {}, {"blk.0.ffn_gate_inp.weight is missing, wanted [4, 64]",
                                    "blk.2.ffn_gate.weight is q4_0 [192, 64], wanted [96, 64]", "and more"});
}

TEST_F(GgufImport, NumbersThatAreNoneAreNamed) {
  make_file();
  for (const float bad : {INFINITY, -INFINITY, NAN, 3.4e38f}) {
    expect_refused(
        [&](GgufCopy& copy) { std::memcpy(copy.find("output_norm.weight").bytes.data() + 12, &bad, sizeof(bad)); },
        {"output_norm.weight: value at [0, 3] is", "no finite BF16 number"});
  }
  expect_refused(
      [](GgufCopy& copy) {
        copy.find(kUp).bytes[2 * 36 + 18] = std::byte{0};
        copy.find(kUp).bytes[2 * 36 + 19] = std::byte{0x7c};
      },
      {"blk.0.ffn_up.weight: value at [2, 3"});
}

TEST_F(GgufImport, OtherTypesAndDamagedFilesAreNamed) {
  make_file();
  const std::string whole = read("first.gguf");
  std::string other = whole;
  const int32_t q4_k = 12;
  std::memcpy(other.data() + other.find(kUp) + std::strlen(kUp) + 4 + 2 * 8, &q4_k, sizeof(q4_k));
  write_file(folder_ / "changed.gguf", other);
  expect_error([&] { import("changed.gguf"); },
               {"changed.gguf", kUp, "type 12 (Q4_K)", "supported: F32, F16, BF16, Q4_0"});
  for (const size_t size : {size_t{3}, whole.size() / 8, whole.size() / 2, whole.size() - 64}) {
    write_file(folder_ / "changed.gguf", whole.substr(0, size));
    expect_error([&] { import("changed.gguf"); }, {"changed.gguf"});
  }
  expect_nothing_left();
}

}  // namespace
}  // namespace qat
