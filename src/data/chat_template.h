// The chat templates of Gemma 4 and Gemma 3, written in C++ and recognised from the model's own chat_template.jinja.
// Rendered ids equal transformers' apply_chat_template (tests/interop/chat_template_against_transformers.py).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"

namespace qat {

enum class ChatTemplateKind {
  Gemma4Small,  // E2B, E4B
  Gemma4Large,  // 12B, 26B-A4B, 31B: the generation prompt has an empty thought channel when thinking is off
  Gemma3
};

// A template and the edition of it that the model brings.
struct ChatTemplate {
  ChatTemplateKind kind = ChatTemplateKind::Gemma4Small;
  // Gemma 4's edition of July 2026: reasoning is rendered without tool calls too, and consecutive assistant messages
  // share one turn. Earlier editions want tool calls beside reasoning and close the turn after each message.
  bool july_edition = true;

  bool operator==(const ChatTemplate&) const = default;
};

// The template of a Jinja text, or nothing if it is none of ours. White space does not matter.
std::optional<ChatTemplate> recognise_chat_template(std::string_view jinja);

// "gemma4", "gemma4-large" or "gemma3" (the values of data.chat_template). Throws Error for another name.
ChatTemplate chat_template_by_name(std::string_view name);
std::string_view chat_template_name(ChatTemplateKind kind);

// The template of a model folder: chat_template.jinja, else `chat_template` in tokenizer_config.json; nothing if it has
// neither (a base model). `override_name` ("" for none) wins. Throws Error that names data.chat_template if the
// model's template is unknown.
std::optional<ChatTemplate> load_chat_template(const std::filesystem::path& model_folder,
                                               std::string_view override_name);

// A call that the model makes. `arguments` is the text of a JSON object, or other text that is written as it is.
struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;
};

// What a tool answered: `response` is the text of any JSON value.
struct ToolResponse {
  std::string name;
  std::string response;
};

struct Message {
  std::string role;  // system, developer, user, assistant, tool
  // Text parts; plain text is one part. None means null or absent.
  std::vector<std::string> content;
  bool content_is_list = false;
  std::string reasoning;
  std::vector<ToolCall> tool_calls;
  std::vector<ToolResponse> tool_responses;  // answers given inside the assistant's message
  std::optional<std::string> name;           // of a tool message
  std::optional<std::string> tool_call_id;   // of a tool message
};

// A message of plain text.
Message text_message(std::string role, std::string content);

struct Conversation {
  std::vector<Message> messages;
  std::vector<std::string> tools;  // each the JSON text of {"type": "function", "function": {…}}
};

struct RenderOptions {
  bool enable_thinking = false;
  // Reasoning of earlier turns stays when its message has tool calls (Gemma 4's July edition).
  bool preserve_thinking = false;
  // Ends with the header of the model's turn, for generating.
  bool add_generation_prompt = false;
  // Gemma4Large without thinking: puts the empty thought channel (not trained) in front of the last turn's answer, so
  // that training sees what generation sees. The shipped template does so only in the generation prompt.
  bool empty_thought_before_answer = false;
  // Special tokens inside the messages' text become tokens, as transformers does; without, they stay text.
  bool parse_special_in_content = true;
};

// A piece of the rendered text.
struct ChatSpan {
  std::string text;
  bool trained = false;  // written by the model itself, so part of the loss
  bool content = false;  // comes from a message or tool, not from the template
};

// The whole conversation, beginning with <bos>. Trained are thoughts, tool calls, answers and the token that closes the
// model's turn; not the headers, the empty thought, tool responses and the newline after a turn.
// Throws Error for a conversation that the template refuses (Gemma 3: roles that do not alternate; tools).
std::vector<ChatSpan> render_chat(const ChatTemplate& chat_template, const Conversation& conversation,
                                  const RenderOptions& options);

struct TokenizedChat {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> trained;  // 1 where the token is a target of the loss
};

// Ids of the rendered conversation, exactly one BOS in front. A change of `trained` is always a token boundary, as it
// is when the model generates after a prompt; with Gemma's vocabularies this changes no id.
TokenizedChat tokenize_chat(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                            const Conversation& conversation, const RenderOptions& options);

// Ids at which generation of a chat stops, besides <eos>.
std::vector<int32_t> chat_stop_ids(const Tokenizer& tokenizer, ChatTemplateKind kind);

}  // namespace qat
