// One line of a data file, read into one of three shapes. Errors say what is wrong with the line; the caller adds
// where.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <variant>

#include "data/chat_template.h"
#include "data/record_fields.h"

namespace qat {

// A prompt and the answer to learn.
struct PromptRecord {
  std::string system;  // empty for none
  std::string prompt;
  std::string completion;
  // Plain text puts nothing between prompt and completion of prompt/completion lines, and a newline in the other kinds.
  bool newline_after_prompt = false;
};

struct TextRecord {
  std::string text;
};

using Record = std::variant<Conversation, PromptRecord, TextRecord>;

// The record of a line for training. Throws Error for a missing or empty field, a wrong type or an unknown role.
Record read_record(const nlohmann::ordered_json& line);

// `messages` as transformers and OpenAI write them; `tools` may be null or absent (nullptr).
Conversation read_conversation(const nlohmann::ordered_json& messages, const nlohmann::ordered_json* tools);

}  // namespace qat
