#include "data/tokenizer.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "core/json.h"
#include "core/random.h"
#include "data/small_tokenizer.h"
#include "data/utf8.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using nlohmann::json;
using testing::expect_error;
using testing::golden_data;
using testing::small_tokenizer;

json small_json() { return load_json(golden_data("tokenizer.json")); }

// Byte-pair encoding in its plainest form: join the neighbours of lowest rank, leftmost first, until none is left.
std::vector<int32_t> encode_plainly(const Tokenizer& tokenizer, const std::string& text) {
  std::map<std::pair<int32_t, int32_t>, size_t> ranks;
  for (size_t rank = 0; rank < tokenizer.merges().size(); ++rank) {
    ranks[{tokenizer.merges()[rank].left, tokenizer.merges()[rank].right}] = rank;
  }
  std::vector<int32_t> ids;
  for (size_t i = 0; i < text.size();) {
    const size_t length = code_point_at(text, i).length;
    const std::string character = text[i] == ' ' ? "▁" : text.substr(i, length);
    if (const auto id = tokenizer.id_of(character)) {
      ids.push_back(*id);
    } else {
      for (size_t k = 0; k < length; ++k) ids.push_back(tokenizer.byte_ids()[static_cast<uint8_t>(text[i + k])]);
    }
    i += length;
  }
  for (;;) {
    size_t best = SIZE_MAX;
    size_t where = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = ranks.find({ids[i], ids[i + 1]});
      if (found != ranks.end() && found->second < best) {
        best = found->second;
        where = i;
      }
    }
    if (best == SIZE_MAX) return ids;
    const Merge& merge = tokenizer.merges()[best];
    ids[where] = *tokenizer.id_of(tokenizer.piece(merge.left) + tokenizer.piece(merge.right));
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(where) + 1);
  }
}

TEST(Tokenizer, EqualsPlainByPairMergingAndDecodesBack) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  SplitMix64 random(seed);
  const std::vector<std::string> parts = {"the", " be", "ing", "\n",     "\n\n\n", " ",    "   ",   ">",
                                          " </", "é",   "éé",  "日本",   "🦙",   "🦣", "a",     "t",
                                          "h",   "e",   "\t",  "<0x41>", "\u00ff", "will", "other", "/"};
  for (int round = 0; round < 400; ++round) {
    std::string text;
    for (uint64_t i = random.below(40); i > 0; --i) text += parts[random.below(parts.size())];
    const auto ids = small_tokenizer().encode(text);
    ASSERT_EQ(ids, encode_plainly(small_tokenizer(), text)) << text;
    ASSERT_EQ(small_tokenizer().decode(ids), text);
  }
}

TEST(Tokenizer, LongTextTakesNoSquareTime) {
  // One unbroken run, so that no cut helps: a quadratic algorithm would take minutes.
  const std::string text(400000, '\n');
  EXPECT_EQ(small_tokenizer().encode(text).size(), 400000u / 31 + 1);
}

TEST(Tokenizer, AccessorsTellWhatTheFileHolds) {
  const Tokenizer& tokenizer = small_tokenizer();
  const json file = small_json();
  EXPECT_EQ(tokenizer.vocabulary_size(), static_cast<int64_t>(file["model"]["vocab"].size()));
  EXPECT_EQ(tokenizer.pieces().size(), file["model"]["vocab"].size());
  ASSERT_EQ(tokenizer.merges().size(), file["model"]["merges"].size());
  EXPECT_EQ(tokenizer.piece(tokenizer.merges()[5].left), file["model"]["merges"][5][0]);
  EXPECT_EQ(tokenizer.piece(tokenizer.merges()[5].right), file["model"]["merges"][5][1]);
  EXPECT_EQ(tokenizer.added_tokens().size(), file["added_tokens"].size());
  EXPECT_EQ(tokenizer.require_id("<bos>"), file["model"]["vocab"]["<bos>"]);
  EXPECT_TRUE(tokenizer.is_special(tokenizer.require_id("<bos>")));
  EXPECT_FALSE(tokenizer.is_special(tokenizer.require_id("a")));
  EXPECT_FALSE(tokenizer.is_special(-1));
  EXPECT_EQ(tokenizer.piece(tokenizer.byte_ids()[0x0a]), "<0x0A>");
  EXPECT_EQ(tokenizer.id_of("no such piece"), std::nullopt);
}

TEST(Tokenizer, DecodeReplacesBytesThatAreNoText) {
  const Tokenizer& tokenizer = small_tokenizer();
  const auto byte = [&](int value) { return tokenizer.byte_ids()[static_cast<size_t>(value)]; };
  const std::vector<int32_t> broken = {tokenizer.require_id("a"), byte(0xf0), byte(0x9f), tokenizer.require_id("b")};
  EXPECT_EQ(tokenizer.decode(broken), "a\ufffd\ufffdb");
}

TEST(Tokenizer, WrongIdsAndNamesAreErrors) {
  expect_error([] { small_tokenizer().decode(std::vector<int32_t>{-1}); }, {"-1", "outside the vocabulary"});
  expect_error([] { small_tokenizer().decode(std::vector<int32_t>{1 << 20}); }, {"1048576"});
  expect_error([] { small_tokenizer().require_id("<nothing>"); }, {"tokenizer.json", "<nothing>"});
}

// A change of the file and what the error must say.
struct BadFile {
  const char* name;
  void (*change)(json&);
  std::vector<std::string> says;
};

TEST(Tokenizer, BadFilesAreErrorsThatNameTheFault) {
  const std::vector<BadFile> files = {
      {"no model", [](json& t) { t.erase("model"); }, {"no field model"}},
      {"not an object", [](json& t) { t = json::array(); }, {"no JSON object"}},
      {"no vocabulary", [](json& t) { t["model"].erase("vocab"); }, {"model.vocab"}},
      {"vocabulary a list", [](json& t) { t["model"]["vocab"] = json::array({"a"}); }, {"model.vocab"}},
      {"empty vocabulary", [](json& t) { t["model"]["vocab"] = json::object(); }, {"model.vocab is empty"}},
      {"no merges", [](json& t) { t["model"].erase("merges"); }, {"model.merges"}},
      {"text id", [](json& t) { t["model"]["vocab"]["a"] = "1"; }, {"\"a\"", "no integer"}},
      {"fractional id", [](json& t) { t["model"]["vocab"]["a"] = 1.5; }, {"\"a\"", "no integer"}},
      {"negative id", [](json& t) { t["model"]["vocab"]["a"] = -4; }, {"\"a\"", "-4"}},
      {"huge id", [](json& t) { t["model"]["vocab"]["a"] = UINT64_MAX; }, {"\"a\"", "has id"}},
      {"an id twice",
       [](json& t) { t["model"]["vocab"]["a"] = t["model"]["vocab"]["b"]; },
       {"two pieces", "\"a\"", "\"b\""}},
      {"no byte piece", [](json& t) { t["model"]["vocab"].erase("<0x7F>"); }, {"<0x7F>", "byte_fallback"}},
      {"merge of an unknown piece",
       [](json& t) {
         t["model"]["merges"][3] = {"zzz", "a"};
       },
       {"merges[3]", "\"zzz\""}},
      {"merge without result",
       [](json& t) {
         t["model"]["merges"][0] = {"Z", "Q"};
       },
       {"merges[0]", "\"ZQ\""}},
      {"merge of three",
       [](json& t) {
         t["model"]["merges"][2] = {"a", "b", "c"};
       },
       {"merges[2]"}},
      {"merge of one", [](json& t) { t["model"]["merges"][2] = "ab"; }, {"merges[2]"}},
      {"merge a number", [](json& t) { t["model"]["merges"][2] = 7; }, {"merges[2]"}},
      {"merge an object", [](json& t) { t["model"]["merges"][2] = json::object(); }, {"merges[2]"}},
      {"empty side",
       [](json& t) {
         t["model"]["vocab"][""] = 9999;
         t["model"]["merges"][1] = {"", "a"};
       },
       {"merges[1]", "empty"}},
      {"another model", [](json& t) { t["model"]["type"] = "Unigram"; }, {"model.type", "Unigram"}},
      {"no byte fallback", [](json& t) { t["model"]["byte_fallback"] = false; }, {"byte_fallback"}},
      {"ignore_merges", [](json& t) { t["model"]["ignore_merges"] = true; }, {"ignore_merges"}},
      {"dropout", [](json& t) { t["model"]["dropout"] = 0.1; }, {"dropout"}},
      {"prefix", [](json& t) { t["model"]["continuing_subword_prefix"] = "##"; }, {"continuing_subword_prefix"}},
      {"unknown normalizer",
       [](json& t) {
         t["normalizer"] = {{"type", "NFKC"}};
       },
       {"normalizer", "NFKC"}},
      {"normalizer by regex",
       [](json& t) {
         t["normalizer"]["pattern"] = {{"Regex", "x"}};
       },
       {"normalizer", "Regex"}},
      {"unknown pre-tokenizer",
       [](json& t) {
         t["pre_tokenizer"] = {{"type", "ByteLevel"}};
       },
       {"pre_tokenizer", "ByteLevel"}},
      {"a split that happens",
       [](json& t) { t["pre_tokenizer"]["pattern"]["String"] = "x"; },
       {"pre_tokenizer", "\"x\""}},
      {"unknown decoder",
       [](json& t) {
         t["decoder"] = {{"type", "WordPiece"}};
       },
       {"decoder", "WordPiece"}},
      {"single_word", [](json& t) { t["added_tokens"][3]["single_word"] = true; }, {"added_tokens[3].single_word"}},
      {"lstrip", [](json& t) { t["added_tokens"][4]["lstrip"] = true; }, {"added_tokens[4].lstrip", "<mask>"}},
      {"added token without id", [](json& t) { t["added_tokens"][0].erase("id"); }, {"added_tokens[0].id"}},
      {"added token of another id",
       [](json& t) { t["added_tokens"][0]["id"] = 77; },
       {"added_tokens[0]", "<pad>", "77"}},
      {"added token on a used id",
       [](json& t) {
         t["added_tokens"].push_back({{"id", 5}, {"content", "<new>"}});
       },
       {"<new>", "two pieces"}},
      {"empty added token",
       [](json& t) {
         t["added_tokens"].push_back({{"id", 9999}, {"content", ""}});
       },
       {"content is empty"}},
  };
  for (const BadFile& file : files) {
    SCOPED_TRACE(file.name);
    json changed = small_json();
    file.change(changed);
    expect_error([&] { Tokenizer::parse(changed.dump(), "bad.json"); }, {"bad.json"});
    for (const std::string& part : file.says) {
      expect_error([&] { Tokenizer::parse(changed.dump(), "bad.json"); }, {part});
    }
  }
}

TEST(Tokenizer, SyntaxErrorsAndMissingFilesNameThePlace) {
  expect_error([] { Tokenizer::parse("{\"model\": {\n\"vocab\": {\"a\" 1}}}", "bad.json"); }, {"bad.json:2:"});
  expect_error([] { Tokenizer::parse("", "bad.json"); }, {"bad.json"});
  const std::string whole = small_json().dump();
  for (size_t size = 0; size < whole.size(); size += 211) {
    expect_error([&] { Tokenizer::parse(whole.substr(0, size), "cut.json"); }, {"cut.json"});
  }
  const testing::TemporaryFolder folder;
  expect_error([&] { Tokenizer::load(folder / "none.json"); }, {"none.json"});
}

}  // namespace
}  // namespace qat
