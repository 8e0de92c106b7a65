// Reads JSON lines {"messages", "tools", "enable_thinking", "preserve_thinking", "add_generation_prompt"} from stdin
// and prints {"text", "tokens", "trained"} or {"error"} for each (tests/interop/chat_template_against_transformers.py).
// Usage: qat_chat_dump TOKENIZER_JSON JINJA_FILE|gemma4|gemma4-large|gemma3
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "core/error.h"
#include "core/mapped_file.h"
#include "data/chat_template.h"
#include "data/record.h"
#include "data/tokenizer.h"

namespace {

using nlohmann::ordered_json;

qat::ChatTemplate choose_template(const std::string& name) {
  if (!std::filesystem::exists(name)) return qat::chat_template_by_name(name);
  const auto found = qat::recognise_chat_template(qat::read_text_file(name));
  if (!found) qat::fail(name, ": not recognised");
  return *found;
}

ordered_json answer(const ordered_json& line, const qat::Tokenizer& tokenizer, const qat::ChatTemplate& chat_template) {
  qat::RenderOptions options;
  options.enable_thinking = line.value("enable_thinking", false);
  options.preserve_thinking = line.value("preserve_thinking", false);
  options.add_generation_prompt = line.value("add_generation_prompt", false);
  const ordered_json* tools = line.contains("tools") ? &line["tools"] : nullptr;
  const qat::Conversation conversation = qat::read_conversation(line.at("messages"), tools);
  std::string text;
  for (const qat::ChatSpan& span : qat::render_chat(chat_template, conversation, options)) text += span.text;
  const qat::TokenizedChat chat = qat::tokenize_chat(tokenizer, chat_template, conversation, options);
  return {{"text", text}, {"tokens", chat.tokens}, {"trained", chat.trained}};
}

int run(const std::string& tokenizer_path, const std::string& template_name) {
  const qat::Tokenizer tokenizer = qat::Tokenizer::load(tokenizer_path);
  const qat::ChatTemplate chat_template = choose_template(template_name);
  std::cerr << qat::chat_template_name(chat_template.kind) << (chat_template.july_edition ? ", July edition\n" : "\n");
  for (std::string line; std::getline(std::cin, line);) {
    try {
      std::cout << answer(qat::parse_line(line), tokenizer, chat_template).dump() << '\n';
    } catch (const qat::Error& error) {
      std::cout << ordered_json{{"error", error.what()}}.dump() << '\n';
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 3) qat::fail_usage("usage: qat_chat_dump TOKENIZER_JSON JINJA_FILE|gemma4|gemma4-large|gemma3");
    return run(argv[1], argv[2]);
  } catch (const qat::Error& error) {
    std::cerr << error.what() << '\n';
    return static_cast<int>(error.exit_code());
  }
}
