// Which of the built-in templates a model's own Jinja text is.
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "core/mapped_file.h"
#include "data/chat_template.h"

namespace qat {

namespace {

// Without white space and written-out newlines, which differ between copies of the same template.
std::string squeeze(std::string_view jinja) {
  std::string squeezed;
  for (size_t i = 0; i < jinja.size(); ++i) {
    if (jinja[i] == ' ' || jinja[i] == '\t' || jinja[i] == '\n' || jinja[i] == '\r') continue;
    if (jinja.substr(i, 2) == "\\n") {
      ++i;
      continue;
    }
    squeezed += jinja[i] == '"' ? '\'' : jinja[i];
  }
  return squeezed;
}

bool has_all(std::string_view text, std::initializer_list<std::string_view> features) {
  for (const std::string_view feature : features) {
    if (text.find(feature) == std::string_view::npos) return false;
  }
  return true;
}

// The `chat_template` of tokenizer_config.json: text, or a list of named templates.
std::optional<std::string> configured_template(const std::filesystem::path& path) {
  const nlohmann::json config = load_json(path);
  if (!config.is_object() || !config.contains("chat_template")) return std::nullopt;
  const nlohmann::json& entry = config["chat_template"];
  if (entry.is_string()) return entry.get<std::string>();
  if (entry.is_array()) {
    for (const nlohmann::json& named : entry) {
      if (named.is_object() && named.value("name", "") == "default") return named.value("template", "");
    }
  }
  return std::nullopt;
}

// Gemma 4's turns and nothing else: where a template knows neither tools nor thinking, the built-in one renders the same.
bool is_plain_gemma4(std::string_view text) {
  if (!has_all(text, {"bos_token", "'<|turn>'+role+", "message['content']|trim+'<turn|>'", "'<|turn>model'"})) return false;
  for (const std::string_view feature : {"tool", "think", "<|channel>", "reasoning"}) {
    if (text.find(feature) != std::string_view::npos) return false;
  }
  return true;
}

}  // namespace

std::optional<ChatTemplate> recognise_chat_template(std::string_view jinja) {
  const std::string text = squeeze(jinja);
  if (has_all(text,
              {"'<start_of_turn>'+role", "first_user_prefix", "<end_of_turn>", "Conversationrolesmustalternate"})) {
    return ChatTemplate{ChatTemplateKind::Gemma3, false};
  }
  if (is_plain_gemma4(text)) return ChatTemplate{ChatTemplateKind::Gemma4Small, true};
  const bool gemma4 =
      has_all(text, {"'<|turn>'+role", "'<|turn>system'", "'<|think|>'", "<|tool_call>call:", "'<turn|>'",
                     "macrostrip_thinking", "macroformat_tool_response_block", "continue_same_model_turn",
                     "last_user_idx", "'<|channel>thought'+thinking_text"});
  if (!gemma4) return std::nullopt;
  ChatTemplate found;
  found.kind = text.find("'<|channel>thought<channel|>'") != std::string::npos ? ChatTemplateKind::Gemma4Large
                                                                               : ChatTemplateKind::Gemma4Small;
  const bool july = has_all(text, {"continues_into_next", "preserve_thinking", "argumentisnone"});
  const bool earlier = has_all(text, {"last_user_idxandmessage.get('tool_calls')"});
  if (july == earlier) return std::nullopt;
  found.july_edition = july;
  return found;
}

ChatTemplate chat_template_by_name(std::string_view name) {
  if (name == "gemma4") return {ChatTemplateKind::Gemma4Small, true};
  if (name == "gemma4-large") return {ChatTemplateKind::Gemma4Large, true};
  if (name == "gemma3") return {ChatTemplateKind::Gemma3, false};
  fail_usage("data.chat_template is \"", name,
             "\"; gemma4 (E2B, E4B), gemma4-large (12B, 26B-A4B, 31B) or gemma3 is wanted");
}

std::string_view chat_template_name(ChatTemplateKind kind) {
  switch (kind) {
    case ChatTemplateKind::Gemma4Small:
      return "gemma4";
    case ChatTemplateKind::Gemma4Large:
      return "gemma4-large";
    case ChatTemplateKind::Gemma3:
      return "gemma3";
  }
  return "";
}

std::optional<ChatTemplate> load_chat_template(const std::filesystem::path& model_folder,
                                               std::string_view override_name) {
  if (!override_name.empty()) return chat_template_by_name(override_name);
  std::filesystem::path source = model_folder / "chat_template.jinja";
  std::optional<std::string> jinja;
  if (std::filesystem::exists(source)) {
    jinja = read_text_file(source);
  } else {
    source = model_folder / "tokenizer_config.json";
    if (std::filesystem::exists(source)) jinja = configured_template(source);
  }
  if (!jinja) return std::nullopt;
  const auto found = recognise_chat_template(*jinja);
  if (!found) {
    fail(source.string(),
         ": the chat template is none that this program knows; if the model speaks Gemma's format all the ",
         "same, set data.chat_template to gemma4, gemma4-large or gemma3");
  }
  return found;
}

}  // namespace qat
