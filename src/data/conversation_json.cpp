// `messages` and `tools` of a JSON line -> Conversation.
#include <array>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/record.h"

namespace qat {

namespace {

using nlohmann::ordered_json;

const ordered_json* find(const ordered_json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string text_field(const ordered_json& object, const char* name, const std::string& path) {
  const ordered_json* value = find(object, name);
  if (value == nullptr) fail(path, ".", name, " is missing");
  if (!value->is_string()) fail(path, ".", name, " is ", value->type_name(), ", text is wanted");
  return value->get<std::string>();
}

std::string optional_text(const ordered_json& object, const char* name, const std::string& path) {
  return find(object, name) == nullptr ? "" : text_field(object, name, path);
}

std::string read_role(const ordered_json& message, const std::string& path) {
  const std::string role = text_field(message, "role", path);
  if (role == "model") return "assistant";
  constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant", "tool"};
  for (const std::string_view known : kRoles) {
    if (role == known) return role;
  }
  fail(path, ".role is \"", role, "\"; system, developer, user, assistant or tool is wanted");
}

void read_content(const ordered_json& json, const std::string& path, Message& message) {
  const ordered_json* content = find(json, "content");
  if (content == nullptr) return;
  if (content->is_string()) {
    message.content.push_back(content->get<std::string>());
    return;
  }
  if (!content->is_array()) fail(path, ".content is ", content->type_name(), ", text or a list of parts is wanted");
  message.content_is_list = true;
  for (const ordered_json& part : *content) {
    if (!part.is_object() || part.value("type", "") != "text") {
      fail(path, ".content has a part ", part.dump().substr(0, 80),
           "; only {\"type\": \"text\", \"text\": …} is supported");
    }
    message.content.push_back(text_field(part, "text", path + ".content[]"));
  }
}

ToolCall read_call(const ordered_json& json, const std::string& path) {
  if (!json.is_object()) fail(path, " is ", json.type_name(), ", an object is wanted");
  const ordered_json* function = find(json, "function");
  if (function == nullptr) function = &json;
  if (!function->is_object()) fail(path, ".function is ", function->type_name(), ", an object is wanted");
  ToolCall call;
  call.id = optional_text(json, "id", path);
  call.name = text_field(*function, "name", path + ".function");
  if (const ordered_json* arguments = find(*function, "arguments")) {
    if (!arguments->is_object() && !arguments->is_string()) {
      fail(path, ".function.arguments is ", arguments->type_name(), ", an object is wanted");
    }
    call.arguments = arguments->is_string() ? arguments->get<std::string>() : arguments->dump();
  }
  return call;
}

const ordered_json& list_field(const ordered_json& object, const char* name, const std::string& path) {
  static const ordered_json kNone = ordered_json::array();
  const ordered_json* list = find(object, name);
  if (list == nullptr) return kNone;
  if (!list->is_array()) fail(path, ".", name, " is ", list->type_name(), ", a list is wanted");
  return *list;
}

Message read_message(const ordered_json& json, const std::string& path) {
  if (!json.is_object()) fail(path, " is ", json.type_name(), ", an object is wanted");
  Message message;
  message.role = read_role(json, path);
  read_content(json, path, message);
  message.reasoning = optional_text(json, "reasoning", path);
  if (message.reasoning.empty()) message.reasoning = optional_text(json, "reasoning_content", path);
  for (const ordered_json& call : list_field(json, "tool_calls", path)) {
    message.tool_calls.push_back(read_call(call, path + ".tool_calls[]"));
  }
  for (const ordered_json& response : list_field(json, "tool_responses", path)) {
    if (!response.is_object()) fail(path, ".tool_responses[] is ", response.type_name(), ", an object is wanted");
    const ordered_json* value = find(response, "response");
    message.tool_responses.push_back(
        {optional_text(response, "name", path), value == nullptr ? "null" : value->dump()});
  }
  if (find(json, "name") != nullptr) message.name = text_field(json, "name", path);
  if (find(json, "tool_call_id") != nullptr) message.tool_call_id = text_field(json, "tool_call_id", path);
  return message;
}

}  // namespace

Conversation read_conversation(const ordered_json& messages, const ordered_json* tools) {
  if (!messages.is_array()) fail("messages is ", messages.type_name(), ", a list is wanted");
  if (messages.empty()) fail("messages is empty");
  Conversation conversation;
  for (size_t i = 0; i < messages.size(); ++i) {
    conversation.messages.push_back(read_message(messages[i], join("messages[", i, "]")));
  }
  if (tools == nullptr || tools->is_null()) return conversation;
  if (!tools->is_array()) fail("tools is ", tools->type_name(), ", a list is wanted");
  for (const ordered_json& tool : *tools) conversation.tools.push_back(tool.dump());
  return conversation;
}

}  // namespace qat
