#include "io/gguf.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "gguf_bytes.h"

namespace qat {
namespace {

using test::GgufBytes;
using test::TemporaryFile;

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string message_of(const auto& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// Two tensors and every kind of metadata, as the format's description lays them out.
std::string described_file() {
  GgufBytes file;
  file.header(2, 4);
  file.text("general.architecture").number<uint32_t>(8).text("gemma4");
  file.text("gemma4.block_count").number<uint32_t>(4).number<uint32_t>(3);
  file.text("pattern").number<uint32_t>(9).number<uint32_t>(7).number<uint64_t>(3).raw({1, 0, 1});
  file.text("tokens").number<uint32_t>(9).number<uint32_t>(8).number<uint64_t>(2).text("a").text("\xe2\x96\x81");
  file.text("norm.weight").number<uint32_t>(1).number<int64_t>(3).number<uint32_t>(0).number<uint64_t>(0);
  file.text("up.weight")
      .number<uint32_t>(2)
      .number<int64_t>(32)
      .number<int64_t>(2)
      .number<uint32_t>(2)
      .number<uint64_t>(32);
  file.pad().raw(std::string(12, 'n')).pad().raw(std::string(36, 'q')).pad();
  return file.bytes();
}

TEST(GgufWriter, WritesTheDescribedBytes) {
  const TemporaryFile file("writer.gguf");
  GgufWriter writer(file.path());
  writer.add("general.architecture", std::string("gemma4"));
  writer.add("gemma4.block_count", uint32_t{3});
  writer.add("pattern", GgufArray(std::vector<bool>{true, false, true}));
  writer.add("tokens", GgufArray(std::vector<std::string>{"a", "\xe2\x96\x81"}));
  writer.declare("norm.weight", {3}, Scheme::F32);
  writer.declare("up.weight", {2, 32}, Scheme::Q4_0);
  writer.begin_data();
  // In any order and in pieces.
  writer.write(1, 20, bytes_of(std::string(16, 'q')));
  writer.write(0, 0, bytes_of(std::string(12, 'n')));
  writer.write(1, 0, bytes_of(std::string(20, 'q')));
  EXPECT_FALSE(std::filesystem::exists(file.path()));
  writer.commit();
  EXPECT_EQ(read_text_file(file.path()), described_file());
  EXPECT_EQ(writer.file_bytes(), described_file().size());
}

TEST(GgufWriter, LeavesNothingBehindWithoutCommit) {
  const TemporaryFile file("abandoned.gguf");
  {
    GgufWriter writer(file.path());
    writer.declare("a", {32}, Scheme::Q8_0);
    writer.begin_data();
  }
  EXPECT_TRUE(std::filesystem::is_empty(file.path().parent_path()));
}

TEST(GgufWriter, RefusesWhatCannotBeStored) {
  const TemporaryFile file("refused.gguf");
  GgufWriter writer(file.path());
  writer.declare("a.weight", {2, 32}, Scheme::Q4_0);
  EXPECT_NE(message_of([&] { writer.declare("b.weight", {2, 48}, Scheme::Q4_0); }).find("b.weight"), std::string::npos);
  EXPECT_NE(message_of([&] { writer.declare("a.weight", {32}, Scheme::F32); }).find("twice"), std::string::npos);
  EXPECT_NE(message_of([&] { writer.declare(std::string(64, 'x'), {32}, Scheme::F32); }).find("63"), std::string::npos);
  EXPECT_NE(message_of([&] { writer.declare("c", {INT64_MAX, 4}, Scheme::F32); }).find("overflows"), std::string::npos);
  writer.add("key", true);
  EXPECT_NE(message_of([&] { writer.add("key", false); }).find("twice"), std::string::npos);
}

TEST(GgufFile, ReadsTheDescribedBytes) {
  const TemporaryFile path("reader.gguf");
  path.fill(described_file());
  const GgufFile file(path.path());
  EXPECT_EQ(file.metadata().text("general.architecture"), "gemma4");
  EXPECT_EQ(file.metadata().integer("gemma4.block_count"), 3);
  EXPECT_EQ(file.metadata().integers("pattern"), (std::vector<int64_t>{1, 0, 1}));
  EXPECT_EQ(file.metadata().texts("tokens"), (std::vector<std::string>{"a", "\xe2\x96\x81"}));
  ASSERT_EQ(file.tensors().size(), 2u);
  const GgufTensor* up = file.find("up.weight");
  ASSERT_NE(up, nullptr);
  EXPECT_EQ(up->shape, (std::vector<int64_t>{2, 32}));
  EXPECT_EQ(up->scheme, Scheme::Q4_0);
  EXPECT_EQ(up->elements(), 64);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(up->bytes.data()), up->bytes.size()), std::string(36, 'q'));
  EXPECT_EQ(file.find("down.weight"), nullptr);
}

TEST(GgufFile, TakesTheAlignmentOfTheFileAndMissingFinalPadding) {
  GgufBytes bytes;
  bytes.header(2, 1).text("general.alignment").number<uint32_t>(4).number<uint32_t>(64);
  bytes.tensor("a", 1, 0, 0).tensor("b", 1, 0, 64).pad(64).raw("aaaa").pad(64).raw("bbbb");
  const TemporaryFile path("alignment.gguf");
  path.fill(bytes.bytes());
  const GgufFile file(path.path());
  EXPECT_EQ(std::to_integer<char>(file.find("b")->bytes[0]), 'b');
}

TEST(GgufMetadata, EveryTypeComesBack) {
  const TemporaryFile path("types.gguf");
  const std::vector<std::pair<std::string, GgufValue>> values{{"u8", uint8_t{200}},
                                                              {"i8", int8_t{-3}},
                                                              {"u16", uint16_t{60000}},
                                                              {"i16", int16_t{-300}},
                                                              {"u32", uint32_t{4000000000u}},
                                                              {"i32", int32_t{-5}},
                                                              {"f32", 1.5f},
                                                              {"bool", true},
                                                              {"text", std::string("\0x", 2)},
                                                              {"u64", uint64_t{1} << 63},
                                                              {"i64", int64_t{-1}},
                                                              {"f64", 0.1},
                                                              {"floats", GgufArray(std::vector<float>{1.0f, -2.0f})},
                                                              {"none", GgufArray(std::vector<int32_t>{})},
                                                              {"doubles", GgufArray(std::vector<double>{0.25})},
                                                              {"bytes", GgufArray(std::vector<uint8_t>{1, 255})}};
  GgufWriter writer(path.path());
  for (const auto& [key, value] : values) writer.add(key, value);
  writer.begin_data();
  writer.commit();
  EXPECT_EQ(GgufFile(path.path()).metadata().entries(), values);
}

TEST(GgufMetadata, GettersSayWhatIsWrong) {
  GgufMetadata metadata("model.gguf");
  metadata.add("count", uint32_t{7});
  metadata.add("huge", uint64_t{1} << 63);
  metadata.add("name", std::string("x"));
  metadata.add("heads", GgufArray(std::vector<int32_t>{4, 2}));
  EXPECT_EQ(message_of([&] { metadata.integer("missing"); }), "model.gguf: metadata \"missing\" is missing");
  EXPECT_EQ(message_of([&] { metadata.integer("name"); }),
            "model.gguf: metadata \"name\" is of type text, wanted is an integer below 2^63");
  EXPECT_NE(message_of([&] { metadata.integer("huge"); }), "no error");
  EXPECT_EQ(message_of([&] { metadata.text("heads"); }),
            "model.gguf: metadata \"heads\" is an array of i32, wanted is text");
  EXPECT_NE(message_of([&] { metadata.number("count"); }), "no error");
  EXPECT_NE(message_of([&] { metadata.boolean("count"); }), "no error");
  EXPECT_NE(message_of([&] { metadata.texts("heads"); }), "no error");
  EXPECT_EQ(metadata.integers_per_layer("count", 2), (std::vector<int64_t>{7, 7}));
  EXPECT_EQ(metadata.integers_per_layer("heads", 2), (std::vector<int64_t>{4, 2}));
  EXPECT_EQ(message_of([&] { metadata.integers_per_layer("heads", 3); }),
            "model.gguf: metadata \"heads\" has 2 entries for 3 layers");
}

}  // namespace
}  // namespace qat
