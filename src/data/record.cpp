#include "data/record.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/question.h"
#include "data/record_fields.h"
#include "data/utf8.h"

namespace qat {

namespace {

using nlohmann::ordered_json;

std::string sharegpt_role(const std::string& from) {
  if (from == "human" || from == "user") return "user";
  if (from == "gpt" || from == "assistant" || from == "model") return "assistant";
  if (from == "system") return "system";
  fail("conversations: \"from\" is \"", from, "\"; human, gpt or system is wanted");
}

Conversation read_sharegpt(const ordered_json& turns) {
  if (!turns.is_array()) fail("conversations is ", turns.type_name(), ", a list is wanted");
  if (turns.empty()) fail("conversations is empty");
  Conversation conversation;
  for (const ordered_json& turn : turns) {
    if (!turn.is_object()) fail("conversations has an entry that is ", turn.type_name(), ", an object is wanted");
    conversation.messages.push_back(text_message(sharegpt_role(text_of(turn, "from")), text_of(turn, "value")));
  }
  return conversation;
}

void check_something_to_learn(const Conversation& conversation) {
  const bool any = std::any_of(conversation.messages.begin(), conversation.messages.end(),
                               [](const Message& message) { return message.role == "assistant"; });
  if (!any) fail("the conversation has no message of the assistant, so there is nothing to learn");
}

PromptRecord prompt_record(const ordered_json& line, const char* prompt, const char* completion, bool newline) {
  PromptRecord record;
  record.prompt = filled_text(line, prompt);
  record.completion = filled_text(line, completion);
  record.newline_after_prompt = newline;
  return record;
}

PromptRecord alpaca_record(const ordered_json& line) {
  PromptRecord record = prompt_record(line, "instruction", "output", true);
  if (has(line, "input")) {
    const std::string input = text_of(line, "input");
    if (!trim_white_space(input).empty()) record.prompt += "\n\n" + input;
  }
  if (has(line, "system")) record.system = text_of(line, "system");
  return record;
}

}  // namespace

Record read_record(const ordered_json& line) {
  if (has(line, "messages") || has(line, "conversations")) {
    const ordered_json* tools = line.contains("tools") ? &line["tools"] : nullptr;
    Conversation conversation =
        has(line, "messages") ? read_conversation(line["messages"], tools) : read_sharegpt(line["conversations"]);
    check_something_to_learn(conversation);
    return conversation;
  }
  if (is_multiple_choice_line(line)) fail("is a multiple-choice question, which is for evaluation only");
  if (has(line, "prompt") || has(line, "completion")) return prompt_record(line, "prompt", "completion", false);
  if (has(line, "instruction")) return alpaca_record(line);
  if (has(line, "input") || has(line, "output")) return prompt_record(line, "input", "output", false);
  if (has(line, "question") || has(line, "answer")) return prompt_record(line, "question", "answer", true);
  if (has(line, "text")) return TextRecord{filled_text(line, "text")};
  std::string fields;
  for (const auto& [name, value] : line.items()) fields += (fields.empty() ? "" : ", ") + name;
  fail("has the fields [", fields,
       "]; messages, conversations, prompt and completion, instruction and output, input and output, question and "
       "answer, "
       "or text is wanted");
}

}  // namespace qat
