// Rendered text and loss masks against transformers (goldens of scripts/golden/make_data_goldens.py).
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "core/mapped_file.h"
#include "data/chat_template.h"
#include "data/record.h"
#include "data/small_tokenizer.h"

namespace qat {
namespace {

using nlohmann::ordered_json;
using testing::golden_data;
using testing::small_tokenizer;

std::vector<int64_t> run_lengths(const std::vector<uint8_t>& mask) {
  std::vector<int64_t> runs = {0};
  uint8_t value = 0;
  for (const uint8_t trained : mask) {
    if (trained != value) {
      runs.push_back(0);
      value = trained;
    }
    ++runs.back();
  }
  return runs;
}

TEST(ChatGolden, TextAndMaskEqualTransformers) {
  const auto goldens = ordered_json::parse(read_text_file(golden_data("chat.json")));
  std::map<std::string, int> kinds;
  for (const ordered_json& golden : goldens) {
    const ordered_json& request = golden["request"];
    SCOPED_TRACE(request.dump());
    ChatTemplate chat_template = chat_template_by_name(golden["template"].get<std::string>());
    chat_template.july_edition = golden["july"].get<bool>();
    ++kinds[golden["template"].get<std::string>() + (chat_template.july_edition ? " July" : "")];
    RenderOptions options;
    options.enable_thinking = request["enable_thinking"].get<bool>();
    options.preserve_thinking = request["preserve_thinking"].get<bool>();
    options.add_generation_prompt = request["add_generation_prompt"].get<bool>();
    const Conversation conversation = read_conversation(request["messages"], &request["tools"]);
    std::string text;
    for (const ChatSpan& span : render_chat(chat_template, conversation, options)) text += span.text;
    EXPECT_EQ(text, golden["text"].get<std::string>());
    const TokenizedChat chat = tokenize_chat(small_tokenizer(), chat_template, conversation, options);
    EXPECT_EQ(chat.tokens.size(), golden["token_count"].get<size_t>());
    EXPECT_EQ(chat.tokens, small_tokenizer().encode(text));
    EXPECT_EQ(run_lengths(chat.trained), golden["trained"].get<std::vector<int64_t>>());
  }
  EXPECT_EQ(kinds.size(), 5u);
}

TEST(ChatGolden, PublishedTemplateIsRecognised) {
  const auto found = recognise_chat_template(read_text_file(golden_data("gemma4_31b_chat_template.jinja")));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->kind, ChatTemplateKind::Gemma4Large);
  EXPECT_FALSE(found->july_edition);
}

}  // namespace
}  // namespace qat
