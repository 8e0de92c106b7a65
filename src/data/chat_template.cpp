#include "data/chat_template.h"

#include "core/error.h"
#include "data/gemma4_template.h"
#include "data/template_values.h"
#include "data/utf8.h"

namespace qat {

Message text_message(std::string role, std::string content) {
  Message message;
  message.role = std::move(role);
  message.content.push_back(std::move(content));
  return message;
}

namespace {

void render_gemma3(const Conversation& conversation, const RenderOptions& options, SpanWriter& out) {
  const std::vector<Message>& messages = conversation.messages;
  if (!conversation.tools.empty())
    fail("chat template: Gemma 3's has no tools; remove \"tools\" or use a Gemma 4 model");
  out.markup("<bos>");
  const size_t first = messages[0].role == "system" ? 1 : 0;
  for (size_t i = first; i < messages.size(); ++i) {
    const Message& message = messages[i];
    const char* wanted = (i - first) % 2 == 0 ? "user" : "assistant";
    if (message.role != wanted) {
      fail("chat template: Gemma 3's wants user and assistant in turn; message ", i + 1, " is of role ", message.role,
           ", ", wanted, " is wanted");
    }
    if (!message.tool_calls.empty()) fail("chat template: Gemma 3's has no tool calls (message ", i + 1, ")");
    const bool from_model = message.role == "assistant";
    out.markup(from_model ? "<start_of_turn>model\n" : "<start_of_turn>user\n");
    if (i == first && first == 1 && !messages[0].content.empty()) {
      out.content(messages[0].content[0]);
      out.markup("\n\n");
    }
    out.set_trained(from_model);
    for (const std::string& part : message.content) out.content(trim_white_space(part));
    out.markup("<end_of_turn>");
    out.set_trained(false);
    out.markup("\n");
  }
  if (options.add_generation_prompt) out.markup("<start_of_turn>model\n");
}

}  // namespace

std::vector<ChatSpan> render_chat(const ChatTemplate& chat_template, const Conversation& conversation,
                                  const RenderOptions& options) {
  if (conversation.messages.empty()) fail("chat template: the conversation has no messages");
  SpanWriter out;
  if (chat_template.kind == ChatTemplateKind::Gemma3) {
    render_gemma3(conversation, options, out);
  } else {
    render_gemma4(chat_template, conversation, options, out);
  }
  return out.take();
}

TokenizedChat tokenize_chat(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                            const Conversation& conversation, const RenderOptions& options) {
  const std::vector<ChatSpan> spans = render_chat(chat_template, conversation, options);
  TokenizedChat chat;
  for (size_t i = 0; i < spans.size();) {
    const ChatSpan& first = spans[i];
    std::string text;
    // Content and markup are encoded together unless special tokens in content must stay text.
    for (; i < spans.size() && spans[i].trained == first.trained &&
           (options.parse_special_in_content || spans[i].content == first.content);
         ++i) {
      text += spans[i].text;
    }
    const std::vector<int32_t> ids = tokenizer.encode(text, options.parse_special_in_content || !first.content);
    chat.tokens.insert(chat.tokens.end(), ids.begin(), ids.end());
    chat.trained.insert(chat.trained.end(), ids.size(), first.trained ? 1 : 0);
  }
  return chat;
}

std::vector<int32_t> chat_stop_ids(const Tokenizer& tokenizer, ChatTemplateKind kind) {
  if (kind == ChatTemplateKind::Gemma3) return {tokenizer.require_id("<end_of_turn>")};
  return {tokenizer.require_id("<turn|>"), tokenizer.require_id("<|tool_response>")};
}

}  // namespace qat
