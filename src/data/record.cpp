#include "data/record.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/utf8.h"

namespace qat {

namespace {

using nlohmann::ordered_json;

bool has(const ordered_json& line, const char* name) { return line.contains(name) && !line[name].is_null(); }

std::string text_of(const ordered_json& line, const char* name) {
  if (!has(line, name)) fail("the field ", name, " is missing");
  const ordered_json& value = line[name];
  if (!value.is_string()) fail(name, " is ", value.type_name(), ", text is wanted");
  return value.get<std::string>();
}

std::string filled_text(const ordered_json& line, const char* name) {
  std::string text = text_of(line, name);
  if (trim_white_space(text).empty()) fail(name, " is empty");
  return text;
}

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

bool is_multiple_choice(const ordered_json& line) { return has(line, "choices") || has(line, "endings"); }

const char* first_of(const ordered_json& line, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (has(line, name)) return name;
  }
  std::string wanted;
  for (const char* name : names) wanted += (wanted.empty() ? "" : ", ") + std::string(name);
  fail("none of the fields ", wanted, " is there");
}

int64_t answer_index(const ordered_json& answer, size_t choices) {
  int64_t index = -1;
  if (answer.is_number_integer()) {
    index = answer.get<int64_t>();
  } else if (answer.is_string()) {
    const auto text = std::string(trim_white_space(answer.get<std::string>()));
    if (text.size() == 1 && ((text[0] >= 'A' && text[0] <= 'Z') || (text[0] >= 'a' && text[0] <= 'z'))) {
      index = (text[0] | 0x20) - 'a';
    } else {
      const auto read = std::from_chars(text.data(), text.data() + text.size(), index);
      if (read.ec != std::errc() || read.ptr != text.data() + text.size()) index = -1;
    }
  }
  if (index < 0 || index >= static_cast<int64_t>(choices)) {
    fail("the answer is ", answer.dump(), "; an index from 0 to ", choices - 1, ", or a letter, is wanted");
  }
  return index;
}

}  // namespace

ordered_json parse_line(std::string_view line) {
  if (!is_valid_utf8(line)) fail("is not valid UTF-8; save the file as UTF-8");
  ordered_json parsed;
  try {
    parsed = ordered_json::parse(line.begin(), line.end());
  } catch (const nlohmann::json::parse_error& error) {
    fail("is not valid JSON at column ", error.byte, "; one JSON object per line is wanted");
  } catch (const nlohmann::json::exception& error) {
    fail("is not valid JSON (", error.what(), ")");
  }
  if (!parsed.is_object()) fail("is ", parsed.type_name(), ", one JSON object per line is wanted");
  return parsed;
}

Record read_record(const ordered_json& line) {
  if (has(line, "messages") || has(line, "conversations")) {
    const ordered_json* tools = line.contains("tools") ? &line["tools"] : nullptr;
    Conversation conversation =
        has(line, "messages") ? read_conversation(line["messages"], tools) : read_sharegpt(line["conversations"]);
    check_something_to_learn(conversation);
    return conversation;
  }
  if (is_multiple_choice(line)) fail("is a multiple-choice question, which is for evaluation only");
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

MultipleChoiceQuestion read_multiple_choice(const ordered_json& line) {
  MultipleChoiceQuestion question;
  question.question = filled_text(line, first_of(line, {"question", "query", "ctx"}));
  const char* name = first_of(line, {"choices", "endings"});
  const ordered_json& choices = line[name];
  if (!choices.is_array() || choices.size() < 2)
    fail(name, " is ", choices.dump(), "; a list of two or more texts is wanted");
  for (const ordered_json& choice : choices) {
    if (!choice.is_string() || choice.get_ref<const std::string&>().empty()) {
      fail(name, " has ", choice.dump(), ", text is wanted");
    }
    question.choices.push_back(choice.get<std::string>());
  }
  question.answer = answer_index(line[first_of(line, {"answer", "label", "gold"})], question.choices.size());
  return question;
}

}  // namespace qat
