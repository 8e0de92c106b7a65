#include "data/gemma4_template.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/utf8.h"

namespace qat {

namespace {

using nlohmann::ordered_json;

constexpr const char* kEmptyThought = "<|channel>thought\n<channel|>";

// The text without every <|channel>…<channel|>, trimmed.
std::string strip_thoughts(std::string_view text) {
  constexpr std::string_view kOpen = "<|channel>";
  constexpr std::string_view kClose = "<channel|>";
  std::string kept;
  for (;;) {
    const size_t close = text.find(kClose);
    const std::string_view part = text.substr(0, close);
    kept += part.substr(0, part.find(kOpen));
    if (close == std::string_view::npos) return std::string(trim_white_space(kept));
    text.remove_prefix(close + kClose.size());
  }
}

class Gemma4Renderer {
 public:
  Gemma4Renderer(const ChatTemplate& chat_template, const Conversation& conversation, const RenderOptions& options,
                 SpanWriter& out)
      : template_(chat_template), conversation_(conversation), options_(options), out_(out) {}

  void render() {
    out_.markup("<bos>");
    first_ = starts_with_system() ? 1 : 0;
    if (options_.enable_thinking || !conversation_.tools.empty() || first_ == 1) render_system();
    for (size_t i = first_; i < messages().size(); ++i) {
      if (messages()[i].role == "user") last_user_ = static_cast<int64_t>(i);
    }
    for (size_t i = first_; i < messages().size(); ++i) {
      if (messages()[i].role == "tool") continue;
      render_message(i);
      previous_role_ = messages()[i].role;
    }
    if (options_.add_generation_prompt) render_generation_prompt();
  }

 private:
  // What the last message ended with, as far as the template asks.
  enum class Last { Text, ToolCall, ToolResponse };

  const std::vector<Message>& messages() const { return conversation_.messages; }
  const char* null_text() const { return template_.july_edition ? "null" : "None"; }
  bool is_large() const { return template_.kind == ChatTemplateKind::Gemma4Large; }

  bool starts_with_system() const {
    return !messages().empty() && (messages()[0].role == "system" || messages()[0].role == "developer");
  }

  void render_system() {
    out_.markup("<|turn>system\n");
    if (options_.enable_thinking) out_.markup("<|think|>\n");
    if (first_ == 1) {
      const Message& system = messages()[0];
      for (const std::string& part : system.content) {
        out_.content(trim_white_space(part));
        if (system.content_is_list) out_.markup(" ");
      }
    }
    for (const std::string& tool : conversation_.tools) {
      out_.markup("<|tool>");
      write_tool_declaration(tool, null_text(), out_);
      out_.markup("<tool|>");
    }
    out_.markup("<turn|>\n");
  }

  void render_message(size_t index) {
    const Message& message = messages()[index];
    const bool from_model = message.role == "assistant";
    const bool continued = from_model && previous_role_ == "assistant";
    last_ = Last::Text;
    if (!continued) {
      out_.markup("<|turn>");
      from_model ? out_.markup("model") : out_.content(message.role);
      out_.markup("\n");
    }
    const bool thought = render_thought(message, index);
    const bool after_last_user = static_cast<int64_t>(index) > last_user_;
    if (options_.empty_thought_before_answer && is_large() && !options_.enable_thinking && from_model && !continued &&
        !thought && after_last_user) {
      out_.markup(kEmptyThought);
    }
    out_.set_trained(from_model);
    for (const ToolCall& call : message.tool_calls) render_call(call);
    out_.set_trained(false);
    const bool responded = render_responses(message, index);
    out_.set_trained(from_model);
    const bool has_content = render_content(message, from_model);
    render_end(message, index, from_model, responded, has_content);
    out_.set_trained(false);
  }

  bool render_thought(const Message& message, size_t index) {
    const bool current = static_cast<int64_t>(index) > last_user_;
    const bool calls = !message.tool_calls.empty();
    const bool shown = template_.july_edition ? current || (options_.preserve_thinking && calls) : current && calls;
    if (message.reasoning.empty() || !shown) return false;
    out_.set_trained(message.role == "assistant");
    out_.markup("<|channel>thought\n");
    out_.content(message.reasoning);
    out_.markup("\n<channel|>");
    out_.set_trained(false);
    return true;
  }

  void render_call(const ToolCall& call) {
    out_.markup("<|tool_call>call:");
    out_.content(call.name);
    out_.markup("{");
    const ordered_json arguments = ordered_json::parse(call.arguments, nullptr, false);
    if (arguments.is_object()) {
      write_members(arguments);
    } else if (template_.july_edition && !call.arguments.empty()) {
      fail("chat template: the arguments of tool call ", call.name, " are ", call.arguments,
           ", a JSON object is wanted");
    } else {
      out_.content(call.arguments);
    }
    out_.markup("}<tool_call|>");
    last_ = Last::ToolCall;
  }

  void write_members(const ordered_json& object) {
    bool first = true;
    for (const auto& [key, value] : sorted_entries(object)) {
      if (!first) out_.markup(",");
      first = false;
      out_.content(key);
      out_.markup(":");
      write_argument(*value, false, null_text(), out_);
    }
  }

  void render_response(const std::string& name, const ordered_json& response) {
    out_.markup("<|tool_response>response:");
    out_.content(name);
    out_.markup("{");
    if (response.is_object()) {
      write_members(response);
    } else {
      out_.markup("value:");
      write_argument(response, false, null_text(), out_);
    }
    out_.markup("}<tool_response|>");
    last_ = Last::ToolResponse;
  }

  // Responses inside the message, else the tool messages that follow it.
  bool render_responses(const Message& message, size_t index) {
    for (const ToolResponse& response : message.tool_responses) {
      ordered_json parsed = ordered_json::parse(response.response, nullptr, false);
      if (parsed.is_discarded()) parsed = response.response;
      render_response(response.name.empty() ? "unknown" : response.name, parsed);
    }
    if (!message.tool_responses.empty()) return true;
    if (message.tool_calls.empty()) return false;
    bool any = false;
    for (size_t i = index + 1; i < messages().size() && messages()[i].role == "tool"; ++i, any = true) {
      const Message& answer = messages()[i];
      ordered_json text;
      if (!answer.content.empty() || answer.content_is_list) {
        std::string joined;
        for (const std::string& part : answer.content) joined += part;
        text = joined;
      }
      render_response(answering_tool(message, answer), text);
    }
    return any;
  }

  static std::string answering_tool(const Message& message, const Message& answer) {
    std::string name = answer.name.value_or("unknown");
    for (const ToolCall& call : message.tool_calls) {
      const std::string id = answer.tool_call_id.value_or("");
      if (call.id == id) name = call.name;
    }
    return name;
  }

  // True if anything was written.
  bool render_content(const Message& message, bool from_model) {
    bool any = false;
    for (const std::string& part : message.content) {
      const std::string text = from_model ? strip_thoughts(part) : std::string(trim_white_space(part));
      out_.content(text);
      any = any || !text.empty();
    }
    return any;
  }

  bool next_is_assistant(size_t index, bool& found) const {
    for (size_t i = index + 1; i < messages().size(); ++i) {
      if (messages()[i].role == "tool") continue;
      found = true;
      return messages()[i].role == "assistant";
    }
    return false;
  }

  void render_end(const Message& message, size_t index, bool from_model, bool responded, bool has_content) {
    if (last_ == Last::ToolCall && !responded) {
      out_.set_trained(false);
      return out_.markup("<|tool_response>");
    }
    if (template_.july_edition) {
      bool next_found = false;
      const bool next_assistant = next_is_assistant(index, next_found);
      const bool continues = from_model && next_assistant && (message.tool_calls.empty() || responded);
      if (continues || (responded && !has_content && !next_found)) return;
    } else {
      // Here the template asks whether the message has content, before thoughts and white space are taken away.
      const bool given =
          message.content_is_list ? !message.content.empty() : !message.content.empty() && !message.content[0].empty();
      if (responded && !given) return;
    }
    out_.markup("<turn|>");
    out_.set_trained(false);
    out_.markup("\n");
  }

  void render_generation_prompt() {
    if (last_ == Last::Text) {
      out_.markup("<|turn>model\n");
      if (is_large() && !options_.enable_thinking) out_.markup(kEmptyThought);
    } else if (last_ == Last::ToolResponse && template_.july_edition && options_.enable_thinking) {
      out_.markup("<|channel>thought\n");
    }
  }

  const ChatTemplate& template_;
  const Conversation& conversation_;
  const RenderOptions& options_;
  SpanWriter& out_;
  size_t first_ = 0;  // index of the first message after the system message
  int64_t last_user_ = -1;
  std::string previous_role_;
  Last last_ = Last::Text;
};

}  // namespace

void render_gemma4(const ChatTemplate& chat_template, const Conversation& conversation, const RenderOptions& options,
                   SpanWriter& out) {
  Gemma4Renderer(chat_template, conversation, options, out).render();
}

}  // namespace qat
