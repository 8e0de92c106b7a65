#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <numeric>

#include "core/output_file.h"
#include "core/random.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;

std::string file_of(const std::string& header, size_t data_bytes) {
  const uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), 8) + header + std::string(data_bytes, '\0');
}

TEST(Safetensors, WhatIsWrittenReadsBack) {
  TemporaryFolder folder;
  std::vector<float> values(6);
  std::iota(values.begin(), values.end(), 1.0F);
  SafetensorsWriter writer(folder / "model.safetensors");
  writer.set_metadata({{"format", "pt"}});
  writer.declare("b", ElementType::F32, {2, 3});
  writer.declare("a", ElementType::U8, {0});
  writer.write(std::as_bytes(std::span(values).first(2)));
  writer.write(std::as_bytes(std::span(values).subspan(2)));
  writer.commit();
  const SafetensorsSource source(folder.path());
  ASSERT_EQ(source.tensors().size(), 2U);
  const TensorView* b = source.find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(std::memcmp(b->bytes.data(), values.data(), 24), 0);
  EXPECT_EQ(source.find("c"), nullptr);
  EXPECT_EQ(source.metadata().at("format"), "pt");
}

struct Broken {
  const char* fault;
  std::string content;
  std::vector<std::string> message;
};

class BrokenFiles : public ::testing::TestWithParam<Broken> {};

TEST_P(BrokenFiles, AreRefusedByName) {
  TemporaryFolder folder;
  write_file(folder / "x.safetensors", GetParam().content);
  try {
    SafetensorsSource source(folder / "x.safetensors");
    FAIL() << "was read";
  } catch (const Error& error) {
    for (const std::string& part : GetParam().message) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    OneFaultEach, BrokenFiles,
    ::testing::Values(
        Broken{"empty", "", {"truncated"}}, Broken{"short_size", "abc", {"truncated"}},
        Broken{"huge_header", std::string(8, '\x7f') + "{}", {"not a safetensors header"}},
        Broken{"header_past_end", std::string("\x40\0\0\0\0\0\0\0", 8) + "{}", {"truncated"}},
        Broken{"not_json", file_of("{oops}", 0), {"not valid JSON"}}, Broken{"array", file_of("[1]", 0), {"not a JSON object"}},
        Broken{"truncated", file_of(R"({"t":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", 8), {"\"t\"", "truncated?"}},
        Broken{"wrong_size", file_of(R"({"t":{"dtype":"F32","shape":[4],"data_offsets":[0,12]}})", 12), {"needs 16", "12"}},
        Broken{"overlap",
               file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
                       6),
               {"overlap"}},
        Broken{"hole", file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})", 6), {"unused bytes"}},
        Broken{"tail", file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 6), {"after the last"}},
        Broken{"overflow",
               file_of(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0), {"overflows"}},
        Broken{"negative", file_of(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}})", 0), {"shape has -1"}},
        Broken{"type", file_of(R"({"a":{"dtype":"F4","shape":[1],"data_offsets":[0,4]}})", 4), {"F4", "not supported"}},
        Broken{"reversed", file_of(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[4,0]}})", 4), {"outside"}},
        Broken{"no_offsets", file_of(R"({"a":{"dtype":"U8","shape":[0]}})", 0), {"data_offsets"}}),
    [](const auto& test) { return test.param.fault; });

TEST(Safetensors, RandomDamageNeverCrashes) {
  const uint64_t seed = 4711;
  SCOPED_TRACE(seed);
  SplitMix64 random(seed);
  const std::string whole = file_of(
      R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8);
  TemporaryFolder folder;
  int refused = 0;
  for (int i = 0; i < 500; ++i) {
    std::string damaged = whole.substr(0, random.below(2) == 0 ? whole.size() : random.below(whole.size()));
    for (uint64_t flips = random.below(4); flips > 0 && !damaged.empty(); --flips) {
      damaged[random.below(damaged.size())] = static_cast<char>(random.next());
    }
    write_file(folder / "x.safetensors", damaged);
    try {
      SafetensorsSource source(folder / "x.safetensors");
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 250);
}

TEST(Safetensors, ShardsMustAllBeThere) {
  TemporaryFolder folder;
  write_file(folder / "model.safetensors.index.json", R"({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})");
  write_file(folder / "one.safetensors", file_of(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0));
  expect_error([&] { SafetensorsSource source(folder.path()); }, {"two.safetensors", "missing"});
  write_file(folder / "two.safetensors", file_of("{}", 0));
  expect_error([&] { SafetensorsSource source(folder.path()); }, {"\"b\"", "none of the shards"});
  write_file(folder / "two.safetensors", file_of(R"({"b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0));
  EXPECT_EQ(SafetensorsSource(folder.path()).tensors().size(), 2U);
  write_file(folder / "two.safetensors", file_of(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0));
  expect_error([&] { SafetensorsSource source(folder.path()); }, {"\"a\"", "twice"});
  write_file(folder / "model.safetensors.index.json", R"({"weight_map": {"a": "../one.safetensors"}})");
  expect_error([&] { SafetensorsSource source(folder.path()); }, {"leaves the folder"});
}

}  // namespace
}  // namespace qat
