#include "data/chat_template.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/mapped_file.h"
#include "core/output_file.h"
#include "data/small_tokenizer.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using testing::expect_error;
using testing::golden_data;
using testing::small_tokenizer;
using testing::TemporaryFolder;

constexpr ChatTemplate kSmall = {ChatTemplateKind::Gemma4Small, true};
constexpr ChatTemplate kLarge = {ChatTemplateKind::Gemma4Large, true};
constexpr ChatTemplate kGemma3 = {ChatTemplateKind::Gemma3, false};

Conversation talk(std::initializer_list<Message> messages) { return {messages, {}}; }

Conversation question_and_answer() { return talk({text_message("user", "Hi"), text_message("assistant", " Hello\n")}); }

std::string text_of(const std::vector<ChatSpan>& spans, bool only_trained) {
  std::string text;
  for (const ChatSpan& span : spans) {
    if (span.trained || !only_trained) text += span.text;
  }
  return text;
}

std::string rendered(const ChatTemplate& chat_template, const Conversation& conversation, RenderOptions options = {}) {
  return text_of(render_chat(chat_template, conversation, options), false);
}

std::string learned(const ChatTemplate& chat_template, const Conversation& conversation, RenderOptions options = {}) {
  return text_of(render_chat(chat_template, conversation, options), true);
}

TEST(ChatTemplate, PlainTurns) {
  EXPECT_EQ(rendered(kSmall, question_and_answer()), "<bos><|turn>user\nHi<turn|>\n<|turn>model\nHello<turn|>\n");
  EXPECT_EQ(learned(kSmall, question_and_answer()), "Hello<turn|>");
  EXPECT_EQ(rendered(kGemma3, question_and_answer()),
            "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n");
  EXPECT_EQ(learned(kGemma3, question_and_answer()), "Hello<end_of_turn>");
}

TEST(ChatTemplate, GenerationPromptOfLargeModelsHasAnEmptyThought) {
  const Conversation question = talk({text_message("user", "Hi")});
  RenderOptions options;
  options.add_generation_prompt = true;
  EXPECT_TRUE(rendered(kSmall, question, options).ends_with("<turn|>\n<|turn>model\n"));
  EXPECT_TRUE(rendered(kLarge, question, options).ends_with("<|turn>model\n<|channel>thought\n<channel|>"));
  options.enable_thinking = true;
  EXPECT_TRUE(rendered(kLarge, question, options).ends_with("<|turn>model\n"));
  EXPECT_TRUE(rendered(kLarge, question, options).starts_with("<bos><|turn>system\n<|think|>\n<turn|>\n"));
}

TEST(ChatTemplate, TrainingPrefixEqualsGenerationPrompt) {
  // What training puts in front of the last answer must be what generation starts from.
  RenderOptions training;
  training.empty_thought_before_answer = true;
  RenderOptions generation;
  generation.add_generation_prompt = true;
  for (const ChatTemplate& chat_template : {kSmall, kLarge, kGemma3}) {
    Conversation conversation = talk({text_message("user", "one"), text_message("assistant", "two"),
                                      text_message("user", "three"), text_message("assistant", "four")});
    const TokenizedChat whole = tokenize_chat(small_tokenizer(), chat_template, conversation, training);
    conversation.messages.pop_back();
    const TokenizedChat prompt = tokenize_chat(small_tokenizer(), chat_template, conversation, generation);
    ASSERT_LT(prompt.tokens.size(), whole.tokens.size());
    EXPECT_TRUE(std::equal(prompt.tokens.begin(), prompt.tokens.end(), whole.tokens.begin()));
    for (size_t i = prompt.tokens.size() - 3; i < prompt.tokens.size(); ++i) EXPECT_EQ(whole.trained[i], 0);
    EXPECT_EQ(whole.trained[prompt.tokens.size()], 1);
  }
}

TEST(ChatTemplate, ToolsAndThoughtsAreTrainedButResponsesAreNot) {
  Message call;
  call.role = "assistant";
  call.reasoning = "hm";
  call.tool_calls = {{"c1", "add", R"({"b": 2, "A": [1.0, "x", null, true]})"}};
  Message answer = text_message("tool", "3");
  answer.tool_call_id = "c1";
  Conversation conversation = talk({text_message("user", "1+2?"), call, answer, text_message("assistant", "three")});
  conversation.tools = {R"({"type":"function","function":{"name":"add","description":"sums"}})"};
  const std::string calls =
      "<|channel>thought\nhm\n<channel|><|tool_call>call:add{A:[1.0,<|\"|>x<|\"|>,null,true],b:2}<tool_call|>";
  EXPECT_EQ(rendered(kSmall, conversation),
            "<bos><|turn>system\n<|tool>declaration:add{description:<|\"|>sums<|\"|>}<tool|><turn|>\n<|turn>user\n1+2?<"
            "turn|>\n"
            "<|turn>model\n" +
                calls + "<|tool_response>response:add{value:<|\"|>3<|\"|>}<tool_response|>three<turn|>\n");
  EXPECT_EQ(learned(kSmall, conversation), calls + "three<turn|>");
}

TEST(ChatTemplate, SpecialTokensInContentAreTokensUnlessSwitchedOff) {
  const Conversation conversation =
      talk({text_message("user", "say <turn|> please"), text_message("assistant", "<turn|>")});
  const int32_t close = small_tokenizer().require_id("<turn|>");
  RenderOptions options;
  const auto count = [&] {
    const auto chat = tokenize_chat(small_tokenizer(), kSmall, conversation, options);
    return std::count(chat.tokens.begin(), chat.tokens.end(), close);
  };
  EXPECT_EQ(count(), 4);
  options.parse_special_in_content = false;
  EXPECT_EQ(count(), 2);
  const auto chat = tokenize_chat(small_tokenizer(), kSmall, conversation, options);
  EXPECT_EQ(small_tokenizer().decode(chat.tokens), rendered(kSmall, conversation));
}

TEST(ChatTemplate, RefusesWhatTheTemplateRefuses) {
  expect_error([] { render_chat(kSmall, {}, {}); }, {"no messages"});
  expect_error([] { rendered(kGemma3, talk({text_message("assistant", "x")})); },
               {"Gemma 3", "message 1", "assistant"});
  expect_error([] { rendered(kGemma3, talk({text_message("user", "x"), text_message("user", "y")})); }, {"message 2"});
  Conversation tools = question_and_answer();
  tools.tools = {"{}"};
  expect_error([&] { rendered(kGemma3, tools); }, {"tools"});
  expect_error([&] { rendered(kSmall, tools); }, {"a tool is {}", "function"});
  Message call = text_message("assistant", "");
  call.tool_calls = {{"", "f", "not json"}};
  expect_error([&] { rendered(kSmall, talk({text_message("user", "x"), call})); }, {"tool call f", "JSON object"});
}

TEST(ChatTemplate, RecognisesVariantsOfTheText) {
  std::string jinja = read_text_file(golden_data("gemma4_31b_chat_template.jinja"));
  std::string squeezed;
  for (const char c : jinja) squeezed += c == '\n' ? std::string("\r\n\t") : std::string(1, c);
  EXPECT_EQ(recognise_chat_template(squeezed), (ChatTemplate{ChatTemplateKind::Gemma4Large, false}));
  const std::string empty_thought = "{{- '<|channel>thought\\n<channel|>' -}}";
  ASSERT_NE(jinja.find(empty_thought), std::string::npos);
  jinja.erase(jinja.find(empty_thought), empty_thought.size());
  EXPECT_EQ(recognise_chat_template(jinja), (ChatTemplate{ChatTemplateKind::Gemma4Small, false}));
  EXPECT_EQ(recognise_chat_template(jinja.substr(0, jinja.size() / 2)), std::nullopt);
  EXPECT_EQ(recognise_chat_template("{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"),
            std::nullopt);
  EXPECT_EQ(recognise_chat_template(""), std::nullopt);
}

TEST(ChatTemplate, LoadsFromAModelFolder) {
  const TemporaryFolder folder;
  EXPECT_EQ(load_chat_template(folder.path(), ""), std::nullopt);
  EXPECT_EQ(load_chat_template(folder.path(), "gemma3"), kGemma3);
  EXPECT_EQ(load_chat_template(folder.path(), "gemma4"), kSmall);
  EXPECT_EQ(load_chat_template(folder.path(), "gemma4-large"), kLarge);
  expect_error([&] { load_chat_template(folder.path(), "llama"); }, {"data.chat_template", "llama", "gemma4-large"});

  const std::string jinja = read_text_file(golden_data("gemma4_31b_chat_template.jinja"));
  const ChatTemplate published = {ChatTemplateKind::Gemma4Large, false};
  write_file(folder / "tokenizer_config.json", nlohmann::json{{"bos_token", "<bos>"}}.dump());
  EXPECT_EQ(load_chat_template(folder.path(), ""), std::nullopt);
  write_file(folder / "tokenizer_config.json", nlohmann::json{{"chat_template", jinja}}.dump());
  EXPECT_EQ(load_chat_template(folder.path(), ""), published);
  const nlohmann::json named = {{{"name", "rag"}, {"template", "x"}}, {{"name", "default"}, {"template", jinja}}};
  write_file(folder / "tokenizer_config.json", nlohmann::json{{"chat_template", named}}.dump());
  EXPECT_EQ(load_chat_template(folder.path(), ""), published);

  write_file(folder / "chat_template.jinja", "{{ something else }}");
  expect_error([&] { load_chat_template(folder.path(), ""); }, {"chat_template.jinja", "data.chat_template"});
  EXPECT_EQ(load_chat_template(folder.path(), "gemma4"), kSmall);
}

TEST(ChatTemplate, StopIds) {
  const Tokenizer& tokenizer = small_tokenizer();
  EXPECT_EQ(chat_stop_ids(tokenizer, ChatTemplateKind::Gemma4Large),
            (std::vector<int32_t>{tokenizer.require_id("<turn|>"), tokenizer.require_id("<|tool_response>")}));
  EXPECT_EQ(chat_stop_ids(tokenizer, ChatTemplateKind::Gemma3),
            std::vector<int32_t>{tokenizer.require_id("<end_of_turn>")});
}

}  // namespace
}  // namespace qat
