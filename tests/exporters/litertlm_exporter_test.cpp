#include "exporters/litertlm_exporter.h"

#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "core/float_types.h"
#include "core/mapped_file.h"
#include "core/output_file.h"
#include "data/small_tokenizer.h"
#include "exporters/litertlm_splice.h"
#include "io/litertlm.h"
#include "io/tflite.h"
#include "litertlm_random_weights.h"
#include "quant/packing.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"
#include "support/tiny_model_folder.h"

namespace qat {
namespace {

using testing::expect_error;
using testing::RandomWeights;
using testing::TemporaryFolder;

class LitertlmExporter : public ::testing::Test {
 protected:
  LitertlmExporter() {
    write_file(folder_ / "config.json", testing::kTinyConfig);
    std::filesystem::copy_file(testing::golden_data("tokenizer.json"), folder_ / "tokenizer.json");
    config_ = Gemma4Config::load(folder_.path());
    config_.max_positions = 512;
  }

  LitertlmExportInputs inputs(const LitertlmWeights& weights, const std::string& name) const {
    LitertlmExportInputs result;
    result.weights = &weights;
    result.model_folder = folder_.path();
    result.output = folder_ / name;
    result.context = 64;
    return result;
  }

  std::string bytes_of(const std::string& name) const { return read_text_file(folder_ / name); }

  TemporaryFolder folder_;
  Gemma4Config config_;
};

TfliteFile model_of(const LitertlmFile& file, const char* type) {
  const LitertlmSectionView* section = file.find(LitertlmSectionType::TfliteModel, "model_type", type);
  EXPECT_NE(section, nullptr) << type;
  return TfliteFile(section->bytes, type);
}

void expect_codes(const RandomWeights& weights, const WeightSpec& weight, const TfliteTensorView& tensor) {
  const QuantScheme& scheme = weights.scheme_of(weight);
  std::vector<int8_t> wanted(static_cast<size_t>(weight.elements())), found(wanted.size());
  weights.codes(weight, 0, weight.rows(), wanted);
  unpack_codes(scheme.id, CodeBytes::TwosComplement, tensor.content, found);
  EXPECT_EQ(found, wanted) << weight.name;
  EXPECT_TRUE(std::ranges::equal(tensor.scales, weights.scales(weight))) << weight.name;
}

TEST_F(LitertlmExporter, HoldsCodesAndScalesUnderTheirNames) {
  const RandomWeights weights(config_, 1);
  const LitertlmExportFigures figures = export_litertlm(inputs(weights, "a.litertlm"));
  EXPECT_EQ(figures.prefill_lengths, (std::vector<int64_t>{8, 32}));
  EXPECT_EQ(figures.file_bytes, std::filesystem::file_size(folder_ / "a.litertlm"));
  const LitertlmFile file(folder_ / "a.litertlm");
  const TfliteFile decoder = model_of(file, "tf_lite_prefill_decode");
  int64_t matrices = 0;
  for (const WeightSpec& weight : weights.table().weights()) {
    const bool in_decoder = weight.role != WeightRole::PerLayerEmbedding;
    const TfliteTensorView* tensor = decoder.find_constant(weight.name);
    ASSERT_EQ(tensor != nullptr, in_decoder) << weight.name;
    if (!in_decoder || !weights.scheme_of(weight).has_row_scales()) continue;
    ++matrices;
    expect_codes(weights, weight, *tensor);
    if (weights.linear_scales(weight).output == 0) continue;
    EXPECT_EQ(decoder.find_quantized(weight.name + ".output")->scales[0], weights.edge.output) << weight.name;
  }
  // q, o, gate, up, down and the two of the per-layer input in four layers, k and v in two, the table as head.
  EXPECT_EQ(matrices, 4 * 7 + 2 * 2 + 1);
}

TEST_F(LitertlmExporter, CutsPerLayerTablesIntoSlices) {
  const RandomWeights weights(config_, 1);
  export_litertlm(inputs(weights, "a.litertlm"));
  const LitertlmFile file(folder_ / "a.litertlm");
  const TfliteFile embedder = model_of(file, "tf_lite_per_layer_embedder");
  const WeightSpec& table = *weights.table().find("embed_tokens_per_layer.weight");
  std::vector<int8_t> all(static_cast<size_t>(table.elements()));
  weights.codes(table, 0, table.rows(), all);
  const int64_t layers = config_.layer_count(), width = config_.per_layer_input_size;
  for (int64_t layer = 0; layer < layers; ++layer) {
    const TfliteTensorView* slice = embedder.find_constant(table.name + "." + std::to_string(layer));
    ASSERT_NE(slice, nullptr);
    std::vector<int8_t> codes(static_cast<size_t>(table.rows() * width));
    unpack_codes(Scheme::Int4, CodeBytes::TwosComplement, slice->content, codes);
    for (int64_t row = 0; row < table.rows(); ++row) {
      const auto wanted = all.begin() + row * table.columns() + layer * width;
      ASSERT_TRUE(std::equal(wanted, wanted + width, codes.begin() + row * width)) << layer << " " << row;
      ASSERT_EQ(slice->scales[static_cast<size_t>(row)],
                weights.scales(table)[static_cast<size_t>(row * layers + layer)]);
    }
  }
}

TEST_F(LitertlmExporter, SharesOneTableWithATiedHead) {
  const RandomWeights weights(config_, 1);
  LitertlmExportInputs shared = inputs(weights, "shared.litertlm");
  shared.embedder = EmbedderLayout::Shared;
  const LitertlmExportFigures figures = export_litertlm(shared);
  EXPECT_LT(figures.file_bytes, export_litertlm(inputs(weights, "separate.litertlm")).file_bytes);
  const LitertlmFile file(folder_ / "shared.litertlm");
  EXPECT_EQ(file.find(LitertlmSectionType::TfliteModel, "model_type", "tf_lite_embedder"), nullptr);
  const TfliteFile decoder = model_of(file, "tf_lite_prefill_decode");
  const void* table = decoder.find_constant("embed_tokens.weight")->content.data();
  for (const TfliteGraphView& graph : decoder.graphs()) {
    for (const auto& tensor : graph.tensors) {
      if (tensor && tensor->name == "embed_tokens.weight") {
        EXPECT_EQ(tensor->content.data(), table);
      }
    }
  }
  EXPECT_TRUE(decoder.signatures().at("decode").inputs.contains("tokens"));
}

TEST_F(LitertlmExporter, CarriesConfigTokenizerAndMetadata) {
  const RandomWeights weights(config_, 1);
  export_litertlm(inputs(weights, "a.litertlm"));
  const LitertlmFile file(folder_ / "a.litertlm");
  const LitertlmSectionView* config = file.find(LitertlmSectionType::GenericBinary, "name", "config.json");
  ASSERT_NE(config, nullptr);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(config->bytes.data()), config->bytes.size()),
            testing::kTinyConfig);
  EXPECT_EQ(decompress_tokenizer(file.find(LitertlmSectionType::HfTokenizerZlib)->bytes, "section"),
            bytes_of("tokenizer.json"));
  EXPECT_NE(file.find(LitertlmSectionType::LlmMetadata), nullptr);
}

TEST_F(LitertlmExporter, KeepsBf16MatricesExactByAPowerOfTwo) {
  RandomWeights weights(config_, 1);
  weights.value_size = 0x1p-40f;
  export_litertlm(inputs(weights, "a.litertlm"));
  const LitertlmFile file(folder_ / "a.litertlm");
  const TfliteFile decoder = model_of(file, "tf_lite_prefill_decode");
  const WeightSpec& weight = *weights.table().find("per_layer_model_projection.weight");
  const TfliteTensorView* tensor = decoder.find_constant(weight.name);
  ASSERT_EQ(tensor->type, TfliteType::Float16);
  std::vector<float> values(static_cast<size_t>(weight.elements()));
  weights.values(weight, 0, weight.rows(), values);
  // The largest is 155/128 * 2^-40, below 2^-39, and comes to just below 2^16.
  for (size_t i = 0; i < values.size(); ++i) {
    Float16 stored;
    std::memcpy(&stored, tensor->content.data() + i * sizeof(stored), sizeof(stored));
    ASSERT_EQ(to_float(stored), values[i] * 0x1p55f);
  }
}

TEST_F(LitertlmExporter, TheSameInputsGiveTheSameBytes) {
  const RandomWeights weights(config_, 1);
  export_litertlm(inputs(weights, "a.litertlm"));
  export_litertlm(inputs(weights, "b.litertlm"));
  EXPECT_EQ(bytes_of("a.litertlm"), bytes_of("b.litertlm"));
}

TEST_F(LitertlmExporter, RefusesWhatTheRuntimeCannotRun) {
  const RandomWeights weights(config_, 1);
  const auto refused = [&](std::initializer_list<std::string> parts, auto change) {
    LitertlmExportInputs wrong = inputs(weights, "wrong.litertlm");
    change(wrong);
    expect_error([&] { export_litertlm(wrong); }, parts);
    EXPECT_FALSE(std::filesystem::exists(wrong.output));
  };
  refused({"1024", "at most 512"}, [](auto& i) { i.context = 1024; });
  refused({"100", "multiple of the smallest prefill length 8", "96"}, [](auto& i) { i.context = 100; });
  refused({"prefill length 67", "no prime"}, [](auto& i) { i.context = 134, i.prefill_lengths = {67}; });
  refused({"prefill length 128"}, [](auto& i) { i.prefill_lengths = {128}; });
  refused({"61"}, [](auto& i) { i.context = 61, i.prefill_lengths = {1}; });
  RandomWeights one_end(config_, 1);
  one_end.edge.output = 0;
  refused({"layers.0.self_attn.q_proj.weight", "both ends"}, [&](auto& i) { i.weights = &one_end; });
  Gemma4Config with_experts = config_;
  with_experts.experts = 4;
  const RandomWeights experts(with_experts, 1);
  refused({"experts"}, [&](auto& i) { i.weights = &experts; });
  write_file(folder_ / "tokenizer.json", "{}");
  refused({"tokenizer.json"}, [](auto&) {});
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
    EXPECT_EQ(entry.path().string().find("partial"), std::string::npos) << entry.path();
  }
}

TEST_F(LitertlmExporter, SplicingGivesTheBytesOfTheDirectExport) {
  RandomWeights base(config_, 1), tuned(config_, 2);
  tuned.edge = {0.03f, 0.06f};
  tuned.cache = {0.01f, 0.05f};
  export_litertlm(inputs(base, "base.litertlm"));
  export_litertlm(inputs(tuned, "tuned.litertlm"));
  ASSERT_NE(bytes_of("base.litertlm"), bytes_of("tuned.litertlm"));
  splice_litertlm(tuned, folder_ / "base.litertlm", folder_ / "spliced.litertlm");
  EXPECT_TRUE(bytes_of("spliced.litertlm") == bytes_of("tuned.litertlm"));
}

TEST_F(LitertlmExporter, SplicingListsWhatDoesNotMatch) {
  const RandomWeights base(config_, 1);
  export_litertlm(inputs(base, "base.litertlm"));
  Gemma4Config other = config_;
  other.layers[0].intermediate_size *= 2;
  const RandomWeights wider(other, 2);
  const auto splice = [&](const LitertlmWeights& weights) {
    splice_litertlm(weights, folder_ / "base.litertlm", folder_ / "spliced.litertlm");
  };
  expect_error([&] { splice(wider); }, {"layers.0.mlp.gate_proj.weight", "layers.0.mlp.down_proj.weight"});
  RandomWeights floating(config_, 2);
  floating.cache = {};
  expect_error([&] { splice(floating); }, {"kv_cache_k_0", "quantized"});
  EXPECT_FALSE(std::filesystem::exists(folder_ / "spliced.litertlm"));
}

}  // namespace
}  // namespace qat
