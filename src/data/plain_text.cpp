#include "data/plain_text.h"

#include <nlohmann/json.hpp>

#include "data/question.h"
#include "data/record.h"

namespace qat {
namespace {

struct TextOf {
  std::string operator()(const TextRecord& record) const { return record.text; }
  std::string operator()(const PromptRecord& record) const { return record.prompt + "\n" + record.completion; }
  std::string operator()(const Conversation& conversation) const {
    std::string text;
    for (const Message& message : conversation.messages) {
      if (message.role == "system" || message.role == "developer") continue;
      for (const std::string& part : message.content) text += part + "\n";
    }
    return text;
  }
};

std::string text_of_line(const nlohmann::ordered_json& line) {
  if (!is_multiple_choice_line(line)) return std::visit(TextOf{}, read_record(line));
  const MultipleChoiceQuestion question = read_multiple_choice(line);
  return question.question + "\n" + question.choices[static_cast<size_t>(question.answer)] + " " + question.ending;
}

}  // namespace

void for_each_text(const std::filesystem::path& path, const TakeText& take) {
  if (path.extension() == ".txt") {
    for_each_paragraph(path, take);
  } else {
    for_each_line(path, [&](const std::string& line, int64_t number) { take(text_of_line(parse_line(line)), number); });
  }
}

}  // namespace qat
