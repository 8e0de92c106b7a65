#include "exporters/gguf_exporter.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "core/mapped_file.h"
#include "io/gguf.h"
#include "quant/block_codec.h"
#include "quant/grid.h"
#include "small_model.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using test::SmallModel;
using testing::expect_error;
using testing::TemporaryFolder;

constexpr int64_t kVocabulary = 400;

std::vector<std::byte> encode(Scheme id, std::span<const float> values, std::span<const Float16> scales = {}) {
  std::vector<std::byte> blocks(static_cast<size_t>(scheme(id).row_bytes(static_cast<int64_t>(values.size()))));
  encode_blocks(id, values, scales, blocks);
  return blocks;
}

std::vector<std::byte> bytes_of(const GgufFile& file, const std::string& name) {
  const GgufTensor* tensor = file.find(name);
  EXPECT_NE(tensor, nullptr) << name;
  if (tensor == nullptr) return {};
  return {tensor->bytes.begin(), tensor->bytes.end()};
}

std::string export_to(SmallModel& model, const TemporaryFolder& folder, int threads = 2) {
  model.inputs().output = folder / "model.gguf";
  model.inputs().threads = threads;
  export_gguf(model.inputs());
  return read_text_file(folder / "model.gguf");
}

void expect_refused(SmallModel& model, std::initializer_list<std::string> parts) {
  const TemporaryFolder folder;
  model.inputs().output = folder / "model.gguf";
  expect_error([&] { export_gguf(model.inputs()); }, parts);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(GgufExporter, WritesEveryWeightInItsScheme) {
  for (const char* plan : {"q4_0", "q4_0-q8-tables", "bf16"}) {
    SCOPED_TRACE(plan);
    SmallModel model(test::small_gemma4(kVocabulary), plan);
    const TemporaryFolder folder;
    export_to(model, folder);
    const GgufFile file(folder / "model.gguf");
    EXPECT_EQ(file.tensors().size(), model.table().weights().size() + 1);
    for (const ExportedWeight& weight : model.inputs().weights) {
      const GgufTensor* tensor = file.find(weight.spec->gguf_name);
      ASSERT_NE(tensor, nullptr) << weight.spec->gguf_name;
      EXPECT_EQ(tensor->shape, weight.spec->shape);
      EXPECT_EQ(tensor->scheme, weight.scheme);
      const auto wanted = encode(weight.scheme, test::widen(model.master(weight.spec->name)));
      EXPECT_EQ(bytes_of(file, weight.spec->gguf_name), wanted) << weight.spec->name;
    }
  }
}

TEST(GgufExporter, GeneratesTheFrequencyDivisorsOfFullLayers) {
  SmallModel model(test::small_gemma4(kVocabulary), "q4_0");
  const TemporaryFolder folder;
  export_to(model, folder);
  const GgufFile file(folder / "model.gguf");
  ASSERT_EQ(file.find("rope_freqs.weight")->elements(), 32);
  std::vector<float> divisors(32);
  decode_blocks(Scheme::F32, file.find("rope_freqs.weight")->bytes, divisors);
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(divisors[i], i < 8 ? 1.0f : 1e30f);
}

TEST(GgufExporter, Gemma3StoresNormsWithTheirOffset) {
  SmallModel model(test::small_gemma3(kVocabulary), "q4_0");
  const TemporaryFolder folder;
  export_to(model, folder);
  const GgufFile file(folder / "model.gguf");
  EXPECT_EQ(file.find("rope_freqs.weight"), nullptr);
  EXPECT_EQ(file.tensors().size(), model.table().weights().size());
  for (const ExportedWeight& weight : model.inputs().weights) {
    if (weight.spec->role != WeightRole::Norm) continue;
    auto wanted = test::widen(model.master(weight.spec->name));
    for (float& value : wanted) value += 1.0f;
    EXPECT_EQ(bytes_of(file, weight.spec->gguf_name), encode(Scheme::F32, wanted)) << weight.spec->name;
  }
}

TEST(GgufExporter, BytesDoNotDependOnThreads) {
  SmallModel model(test::small_gemma4(kVocabulary), "q4_0");
  const TemporaryFolder folder;
  const std::string one = export_to(model, folder, 1);
  EXPECT_EQ(export_to(model, folder, 2), one);
  EXPECT_EQ(export_to(model, folder, 7), one);
}

TEST(GgufExporter, UsesStoredScales) {
  SmallModel model(test::small_gemma4(kVocabulary), "q4_0");
  const std::string name = "layers.1.mlp.up_proj.weight";
  const auto values = test::widen(model.master(name));
  std::vector<Float16> scales;
  for (size_t i = 0; i < values.size(); i += 32) {
    const float rule = grid::q4_0_scale(std::span<const float, 32>(values.data() + i, 32));
    scales.push_back(to_float16(rule * (i % 3 == 0 ? 0.9f : -1.1f)));
  }
  model.exported(name).stored_scales = scales;
  const TemporaryFolder folder;
  export_to(model, folder);
  const GgufFile file(folder / "model.gguf");
  EXPECT_EQ(bytes_of(file, "blk.1.ffn_up.weight"), encode(Scheme::Q4_0, values, scales));
  EXPECT_NE(bytes_of(file, "blk.1.ffn_up.weight"), encode(Scheme::Q4_0, values));

  model.exported(name).stored_scales = std::span(scales).first(scales.size() - 1);
  expect_refused(model, {name, "stored scales"});
  scales[3] = Float16{0x7c00};
  model.exported(name).stored_scales = scales;
  expect_refused(model, {name, "stored scale 3 is inf"});
}

TEST(GgufExporter, EncodesFloatMastersFromTheirOwnNumbersWhereverTheyLie) {
  SmallModel model(test::small_gemma4(kVocabulary), "q4_0");
  const std::string name = "layers.0.self_attn.q_proj.weight";
  auto values = test::widen(model.master(name));
  for (float& value : values) value *= 1.0009765f;  // no BF16 numbers any more
  std::vector<std::byte> bytes(values.size() * sizeof(float) + 1);
  std::memcpy(bytes.data() + 1, values.data(), bytes.size() - 1);
  model.view(name).type = ElementType::F32;
  model.view(name).bytes = std::span(bytes).subspan(1);

  const std::string other = "layers.0.self_attn.o_proj.weight";
  const auto other_bytes = std::as_bytes(std::span(model.master(other)));
  std::vector<std::byte> odd(other_bytes.size() + 1);
  std::memcpy(odd.data() + 1, other_bytes.data(), other_bytes.size());
  model.view(other).bytes = std::span(odd).subspan(1);

  const TemporaryFolder folder;
  export_to(model, folder);
  const GgufFile file(folder / "model.gguf");
  EXPECT_EQ(bytes_of(file, "blk.0.attn_q.weight"), encode(Scheme::Q4_0, values));
  EXPECT_EQ(bytes_of(file, "blk.0.attn_output.weight"), encode(Scheme::Q4_0, test::widen(model.master(other))));
}

TEST(GgufExporter, NamesTheWeightWithANumberThatIsNone) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    SmallModel model(test::small_gemma4(kVocabulary), "q4_0");
    model.master("layers.2.mlp.gate_proj.weight")[64 + 5] = to_bfloat16(bad);
    expect_refused(model, {"layers.2.mlp.gate_proj.weight", "[1, 5]"});
  }
  SmallModel model(test::small_gemma4(kVocabulary), "q4_0");
  model.master("layers.2.input_layernorm.weight")[3] = BFloat16{0x7fc0};
  expect_refused(model, {"layers.2.input_layernorm.weight", "nan"});
}

TEST(GgufExporter, NamesTheWeightThatIsTooLargeForItsScheme) {
  SmallModel model(test::small_gemma4(kVocabulary), "q4_0");
  model.master("layers.0.mlp.up_proj.weight")[0] = to_bfloat16(-6e5f);
  expect_refused(model, {"layers.0.mlp.up_proj.weight", "too large for q4_0"});
}

TEST(GgufExporter, RefusesRowsThatAreNoWholeBlocks) {
  SmallModel model(test::small_gemma4(kVocabulary), "q4_0");
  model.exported("embed_tokens.weight").scheme = Scheme::Q6_K;
  expect_refused(model, {"embed_tokens.weight", "64", "q6_k", "token_embedding"});
}

TEST(GgufExporter, SaysWhyTheOutputCannotBeWritten) {
  SmallModel model(test::small_gemma4(kVocabulary), "q4_0");
  model.inputs().output = "/nonexistent/folder/model.gguf";
  expect_error([&] { export_gguf(model.inputs()); }, {"/nonexistent/folder/model.gguf", "No such file"});
}

}  // namespace
}  // namespace qat
