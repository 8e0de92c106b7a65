#include "io/litertlm.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/random.h"
#include "io/tflite.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;

// Two graphs over one streamed and one inline constant.
TfliteModel small_model() {
  TfliteModel model;
  model.description = "test";
  model.quantizations = {{0.5f, 0.25f, 1.0f, 2.0f}, {0.125f}};
  model.constants = {{8, {}}, {4, std::vector<std::byte>(4, std::byte{1})}};
  for (const char* key : {"prefill_8", "decode"}) {
    TfliteGraph graph;
    graph.key = key;
    graph.tensors = {{"x", TfliteType::Float32, {1, 4}, {}, {}},
                     {"codes", TfliteType::Int8, {1, 4}, {}, 1},
                     {"weight", TfliteType::Int4, {4, 4}, 0, 0},
                     {"sizes", TfliteType::Int32, {1}, 1, {}},
                     {"y", TfliteType::Float32, {1, 4}, {}, {}}};
    graph.operators = {{TfliteOp::Quantize, 1, {0}, {1}, {}},
                       {TfliteOp::FullyConnected, 4, {1, 2, -1}, {4}, FullyConnectedSettings{}},
                       {TfliteOp::Gelu, 1, {4}, {4}, GeluSettings{}}};
    graph.inputs = {{"in", 0}};
    graph.outputs = {{"out", 4}};
    model.graphs.push_back(graph);
  }
  return model;
}

std::string write_small(const std::filesystem::path& path) {
  const TfliteLayout layout = lay_out_tflite(small_model());
  const std::string metadata = "metadata";
  LitertlmWriter writer(path, {{"author", "test"}},
                        {{LitertlmSectionType::LlmMetadata, {}, metadata.size()},
                         {LitertlmSectionType::TfliteModel, {{"model_type", "tf_lite_prefill_decode"}}, layout.bytes}});
  writer.write(0, 0, std::as_bytes(std::span(metadata)));
  writer.write(1, 0, layout.flatbuffer);
  const std::vector<std::byte> codes(8, std::byte{0x21});
  writer.write(1, layout.offsets[0], std::span(codes).first(3));
  writer.write(1, layout.offsets[0] + 3, std::span(codes).subspan(3));
  writer.commit();
  return read_text_file(path);
}

void write_bytes(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// Reads everything that a reader can touch.
size_t read_all(const std::filesystem::path& path) {
  const LitertlmFile file(path);
  size_t sum = 0;
  for (const LitertlmSectionView& section : file.sections()) {
    if (section.type != LitertlmSectionType::TfliteModel) continue;
    const TfliteFile model(section.bytes, "model");
    for (const TfliteGraphView& graph : model.graphs()) {
      for (const auto& tensor : graph.tensors) {
        if (!tensor) continue;
        for (const std::byte byte : tensor->content) sum += static_cast<size_t>(byte);
        for (const float scale : tensor->scales) sum += scale > 0;
      }
    }
  }
  return sum;
}

TEST(Litertlm, ReadsWhatItWrote) {
  const TemporaryFolder folder;
  write_small(folder / "a.litertlm");
  const LitertlmFile file(folder / "a.litertlm");
  EXPECT_EQ(file.facts().at("author"), "test");
  ASSERT_EQ(file.sections().size(), 2u);
  EXPECT_EQ(file.bytes().size() % 16384, 0u);
  // The runtime does not look at case.
  const LitertlmSectionView* section =
      file.find(LitertlmSectionType::TfliteModel, "model_type", "TF_LITE_PREFILL_DECODE");
  ASSERT_NE(section, nullptr);
  const TfliteFile model(section->bytes, "model");
  ASSERT_EQ(model.graphs().size(), 2u);
  EXPECT_EQ(model.graphs()[1].operators[1].inputs, (std::vector<int32_t>{1, 2, -1}));
  EXPECT_EQ(model.graphs()[1].operators[2].op, static_cast<int32_t>(TfliteOp::Gelu));
  EXPECT_EQ(model.signatures().at("decode").outputs.at("out"), 4);
  const TfliteTensorView* weight = model.find_constant("weight");
  ASSERT_NE(weight, nullptr);
  EXPECT_EQ(weight->content.size(), 8u);
  EXPECT_EQ(weight->content[7], std::byte{0x21});
  EXPECT_EQ(reinterpret_cast<uintptr_t>(weight->content.data()) % 64, 0u);
  EXPECT_EQ(std::vector<float>(weight->scales.begin(), weight->scales.end()),
            (std::vector<float>{0.5f, 0.25f, 1.0f, 2.0f}));
  EXPECT_EQ(model.find_quantized("codes")->scales[0], 0.125f);
  EXPECT_EQ(model.find_constant("x"), nullptr);
}

TEST(Litertlm, AFileCutAnywhereIsAnError) {
  const TemporaryFolder folder;
  const std::string whole = write_small(folder / "a.litertlm");
  const LitertlmFile file(folder / "a.litertlm");
  const auto& last = file.sections().back();
  const size_t content_end = static_cast<size_t>(last.begin) + last.bytes.size();
  const auto cut_at = [&](size_t size) {
    write_bytes(folder / "cut.litertlm", std::string_view(whole).substr(0, size));
    expect_error([&] { read_all(folder / "cut.litertlm"); }, {"cut.litertlm"});
  };
  for (size_t size = 1; size < 600; ++size) cut_at(size);
  for (size_t size = 600; size < content_end; size += 97) cut_at(size);
  for (size_t size = static_cast<size_t>(last.begin); size < content_end; size += 7) cut_at(size);
}

TEST(Litertlm, DamagedFilesAreReadOrRefused) {
  const TemporaryFolder folder;
  const std::string whole = write_small(folder / "a.litertlm");
  const size_t model_begin = static_cast<size_t>(LitertlmFile(folder / "a.litertlm").sections().back().begin);
  const uint64_t seed = 20251122;
  SplitMix64 random(seed);
  int refused = 0;
  for (int round = 0; round < 1500; ++round) {
    std::string damaged = whole;
    const size_t changes = 1 + random.next() % 4;
    for (size_t i = 0; i < changes; ++i) {
      const bool in_header = random.next() % 2 == 0;
      const size_t at = in_header ? random.next() % 500 : model_begin + random.next() % 2500;
      damaged[at % damaged.size()] = static_cast<char>(random.next());
    }
    write_bytes(folder / "damaged.litertlm", damaged);
    try {
      read_all(folder / "damaged.litertlm");
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 200) << "seed " << seed;
  EXPECT_LT(refused, 1500) << "seed " << seed;
}

TEST(Litertlm, NamesTheFault) {
  const TemporaryFolder folder;
  const std::string whole = write_small(folder / "a.litertlm");
  const auto refused = [&](size_t at, std::string_view bytes, std::initializer_list<std::string> parts) {
    std::string wrong = whole;
    wrong.replace(at, bytes.size(), bytes);
    write_bytes(folder / "wrong.litertlm", wrong);
    expect_error([&] { read_all(folder / "wrong.litertlm"); }, parts);
  };
  refused(0, "GGUF", {"wrong.litertlm", "no .litertlm file"});
  refused(8, std::string_view("\x02", 1), {"version 2"});
  refused(24, std::string_view("\xff\xff\xff\xff\xff\xff\xff\xff", 8), {"header ends at"});
  const size_t model_begin = static_cast<size_t>(LitertlmFile(folder / "a.litertlm").sections().back().begin);
  refused(model_begin + 4, "TFL2", {"no TFLite model"});
}

TEST(Litertlm, KeepsATokenizer) {
  const std::string text = "{\"model\": \"" + std::string(5000, 'x') + "\"}";
  std::vector<std::byte> section = compress_tokenizer(text);
  EXPECT_LT(section.size(), 200u);
  EXPECT_EQ(decompress_tokenizer(section, "section"), text);
  expect_error([&] { decompress_tokenizer(std::span(section).first(section.size() - 1), "section"); },
               {"section", "cut"});
  expect_error([&] { decompress_tokenizer(std::span(section).first(5), "section"); }, {"section", "truncated"});
  section[7] = std::byte{0xFF};
  expect_error([&] { decompress_tokenizer(section, "section"); }, {"section", "more than"});
}

}  // namespace
}  // namespace qat
