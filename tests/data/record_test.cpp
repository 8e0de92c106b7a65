#include "data/record.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/expect_error.h"

namespace qat {
namespace {

using testing::expect_error;

Record record(const char* line) { return read_record(parse_line(line)); }

TEST(Record, KindsAreRecognisedByTheirFields) {
  EXPECT_EQ(std::get<TextRecord>(record(R"({"text": "once"})")).text, "once");
  EXPECT_EQ(std::get<PromptRecord>(record(R"({"prompt": "p", "completion": "c"})")).completion, "c");
  EXPECT_EQ(std::get<PromptRecord>(record(R"({"input": "p", "output": "c"})")).prompt, "p");
  EXPECT_EQ(std::get<PromptRecord>(record(R"({"question": "q", "answer": "a #### 4"})")).completion, "a #### 4");
  const auto alpaca = std::get<PromptRecord>(record(R"({"instruction": "i", "input": "x", "output": "o"})"));
  EXPECT_EQ(alpaca.prompt, "i\n\nx");
  EXPECT_EQ(std::get<PromptRecord>(record(R"({"instruction": "i", "input": "", "output": "o"})")).prompt, "i");
}

TEST(Record, ShareGptRolesAreTranslated) {
  const auto talk = std::get<Conversation>(record(
      R"({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]})"));
  ASSERT_EQ(talk.messages.size(), 3u);
  EXPECT_EQ(talk.messages[0].role, "system");
  EXPECT_EQ(talk.messages[1].role, "user");
  EXPECT_EQ(talk.messages[2].role, "assistant");
  EXPECT_EQ(talk.messages[2].content, std::vector<std::string>{"g"});
}

TEST(Record, MessagesKeepToolsAndReasoning) {
  const auto talk =
      std::get<Conversation>(record(R"({"tools": [{"type": "function", "function": {"name": "f"}}], "messages": [
      {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
      {"role": "model", "content": null, "reasoning_content": "r", "tool_calls":
          [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]},
      {"role": "tool", "tool_call_id": "1", "name": "f", "content": "y"},
      {"role": "assistant", "content": "z", "tool_responses": [{"name": "f", "response": {"v": 2}}]}]})"));
  ASSERT_EQ(talk.messages.size(), 4u);
  EXPECT_EQ(talk.messages[0].content, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(talk.messages[0].content_is_list);
  EXPECT_EQ(talk.messages[1].role, "assistant");
  EXPECT_EQ(talk.messages[1].reasoning, "r");
  EXPECT_TRUE(talk.messages[1].content.empty());
  EXPECT_EQ(talk.messages[1].tool_calls.at(0).arguments, R"({"x":1})");
  EXPECT_EQ(talk.messages[2].tool_call_id, "1");
  EXPECT_EQ(talk.messages[3].tool_responses.at(0).response, R"({"v":2})");
  EXPECT_EQ(talk.tools.size(), 1u);
}

TEST(Record, BadLinesSayWhatIsWrong) {
  const std::vector<std::pair<const char*, std::vector<std::string>>> lines = {
      {"{\"text\": ", {"not valid JSON at column"}},
      {"[1, 2]", {"array"}},
      {"{\"text\": \"\xff\"}", {"UTF-8"}},
      {"{}", {"fields []"}},
      {R"({"txt": "a", "b": 1})", {"txt, b", "messages"}},
      {R"({"text": 5})", {"text is number"}},
      {R"({"text": " \n"})", {"text is empty"}},
      {R"({"prompt": "p"})", {"completion is missing"}},
      {R"({"completion": "p"})", {"prompt is missing"}},
      {R"({"prompt": "p", "completion": ""})", {"completion is empty"}},
      {R"({"prompt": ["p"], "completion": "c"})", {"prompt is array"}},
      {R"({"instruction": "i"})", {"output is missing"}},
      {R"({"question": "i", "choices": ["a"], "answer": 0})", {"multiple-choice", "evaluation"}},
      {R"({"messages": []})", {"messages is empty"}},
      {R"({"messages": {"role": "user"}})", {"messages is object"}},
      {R"({"messages": ["hi"]})", {"messages[0] is string"}},
      {R"({"messages": [{"content": "x"}]})", {"messages[0].role is missing"}},
      {R"({"messages": [{"role": "user", "content": "x"}]})", {"no message of the assistant"}},
      {R"({"messages": [{"role": "robot", "content": "x"}]})", {"messages[0].role", "robot"}},
      {R"({"messages": [{"role": "user", "content": 4}]})", {"messages[0].content is number"}},
      {R"({"messages": [{"role": "user", "content": [{"type": "image"}]}]})", {"image", "only"}},
      {R"({"messages": [{"role": "assistant", "tool_calls": {}}]})", {"tool_calls is object"}},
      {R"({"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]})", {"function.name is missing"}},
      {R"({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 3}}]}]})",
       {"arguments is number"}},
      {R"({"messages": [{"role": "assistant", "content": "x"}], "tools": 1})", {"tools is number"}},
      {R"({"conversations": []})", {"conversations is empty"}},
      {R"({"conversations": [{"from": "alien", "value": "x"}]})", {"alien"}},
      {R"({"conversations": [{"from": "human"}]})", {"value is missing"}},
  };
  for (const auto& [line, says] : lines) {
    SCOPED_TRACE(line);
    for (const std::string& part : says) expect_error([text = line] { record(text); }, {part});
  }
}

}  // namespace
}  // namespace qat
