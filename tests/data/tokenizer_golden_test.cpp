// Ids and decoded text against Hugging Face's tokenizers (goldens of scripts/golden/make_data_goldens.py).
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/json.h"
#include "data/small_tokenizer.h"
#include "data/tokenizer.h"
#include "data/utf8.h"

namespace qat {
namespace {

using nlohmann::json;
using testing::golden_data;

using Ids = std::vector<int32_t>;

void expect_cases(const Tokenizer& tokenizer, const json& cases) {
  ASSERT_GE(cases.size(), 50u);
  for (const json& golden : cases) {
    const auto text = golden["text"].get<std::string>();
    const auto ids = golden["ids"].get<Ids>();
    EXPECT_EQ(tokenizer.encode(text), ids) << golden["text"];
    EXPECT_EQ(tokenizer.encode(text, false), golden.value("ids_without_specials", ids)) << golden["text"];
    const std::string decoded = golden.value("decoded", text);
    EXPECT_EQ(tokenizer.decode(ids), decoded) << golden["text"];
    EXPECT_EQ(tokenizer.decode(ids, true), golden.value("plain", decoded)) << golden["text"];
  }
}

TEST(TokenizerGolden, EqualsHuggingFace) {
  expect_cases(Tokenizer::load(golden_data("tokenizer.json")), load_json(golden_data("encode.json"))["cases"]);
}

TEST(TokenizerGolden, VariantsEqualHuggingFace) {
  const json base = load_json(golden_data("tokenizer.json"));
  const json variants = load_json(golden_data("encode.json"))["variants"];
  ASSERT_EQ(variants.size(), 2u);
  for (const json& variant : variants) {
    json patched = base;
    patched.merge_patch(variant["patch"]);
    SCOPED_TRACE(variant["patch"].dump());
    expect_cases(Tokenizer::parse(patched.dump(), "patched"), variant["cases"]);
  }
}

TEST(TokenizerGolden, MergesAsTextEqualMergesAsPairs) {
  json base = load_json(golden_data("tokenizer.json"));
  for (json& merge : base["model"]["merges"]) merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  expect_cases(Tokenizer::parse(base.dump(), "text merges"), load_json(golden_data("encode.json"))["cases"]);
}

TEST(TokenizerGolden, InvalidUtf8IsReadAsPythonDoes) {
  const Tokenizer tokenizer = Tokenizer::load(golden_data("tokenizer.json"));
  const json golden = load_json(golden_data("encode.json"));
  ASSERT_GE(golden["invalid_utf8"].size(), 50u);
  for (const json& entry : golden["invalid_utf8"]) {
    const auto hex = entry["hex"].get<std::string>();
    std::string bytes;
    for (size_t i = 0; i < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    const auto repaired = entry["repaired"].get<std::string>();
    EXPECT_EQ(repair_utf8(bytes), repaired) << hex;
    EXPECT_EQ(is_valid_utf8(bytes), bytes == repaired) << hex;
    EXPECT_EQ(tokenizer.encode(bytes), tokenizer.encode(repaired)) << hex;
  }
}

// Vectors of the published tokenizer; give its path in the environment variable GEMMA4_TOKENIZER.
TEST(TokenizerGolden, PublishedGemma4Vectors) {
  const char* path = std::getenv("GEMMA4_TOKENIZER");
  if (path == nullptr) GTEST_SKIP() << "skipped: GEMMA4_TOKENIZER is not set";
  const Tokenizer tokenizer = Tokenizer::load(path);
  EXPECT_EQ(tokenizer.vocabulary_size(), 262144);
  EXPECT_EQ(tokenizer.merges().size(), 514906u);
  EXPECT_EQ(tokenizer.added_tokens().size(), 24u);
  EXPECT_EQ(tokenizer.byte_ids()[0], 238);
  EXPECT_EQ(tokenizer.byte_ids()[255], 493);
  const std::vector<std::pair<std::string, Ids>> vectors = {
      {"Hello world", {9259, 1902}},
      {" Hello", {26352}},
      {"   Hello", {139, 9259}},
      {"\t\n", {255968, 107}},
      {"\n =", {107, 578}},
      {"ied 4 ½ months", {1178, 236743, 236812, 47041, 3794}},
      {"Äpfel", {239122, 22744, 535}},
      {" this is 🦙.cpp", {672, 563, 236743, 478, 397, 404, 391, 236761, 12362}},
      {"333", {236800, 236800, 236800}},
      {"!!!!!!", {123947}},
      {"Cửa Việt", {236780, 29719, 33154}},
      {"\r\n", {251, 107}},
      {"</s>", {954, 236751, 236813}},
      {"<table>", {236820, 5127, 236813}},
      {std::string(1, '\0'), {238}},
      {"def f(x):\n    return x\n", {2063, 517, 236769, 236781, 1473, 107, 140, 2060, 1123, 107}},
      {std::string(32, ' '), {167, 236743}},
      {std::string(32, '\n'), {137, 107}},
      {std::string(40, '\n'), {137, 115}},
      {"<|turn>user\n", {105, 2364, 107}},
      {"<|turn>model\n", {105, 4368, 107}},
      {"<|turn>system\n", {105, 9731, 107}},
      {"<turn|>\n", {106, 107}},
      {"<|channel>thought\n<channel|>", {100, 45518, 107, 101}},
  };
  for (const auto& [text, ids] : vectors) EXPECT_EQ(tokenizer.encode(text), ids) << text;
}

}  // namespace
}  // namespace qat
