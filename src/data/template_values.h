// What a chat template writes: spans of text, and JSON values printed as Jinja prints them.
// Private to the chat templates' own sources.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/chat_template.h"

namespace qat {

// Collects spans; neighbours of the same kind become one.
class SpanWriter {
 public:
  // Text of the template itself, and text from a message or tool.
  void markup(std::string_view text) { add(text, false); }
  void content(std::string_view text) { add(text, true); }
  // Whether what follows is the model's own output.
  void set_trained(bool trained) { trained_ = trained; }

  std::vector<ChatSpan> take() { return std::move(spans_); }

 private:
  void add(std::string_view text, bool content);
  std::vector<ChatSpan> spans_;
  bool trained_ = false;
};

// Jinja's truth of a value; false for nullptr (an undefined field).
bool is_true(const nlohmann::ordered_json* value);

// The field of an object, or nullptr if there is none (or `value` is no object).
const nlohmann::ordered_json* find_field(const nlohmann::ordered_json* value, const char* name);

// Text as Python's str() gives it; "" for nullptr. Throws Error for lists and objects, which no tool schema has there.
std::string value_text(const nlohmann::ordered_json* value);

// ASCII letters in upper case: the types of JSON schema have no others.
std::string upper_case(std::string text);

// Entries in the order of Jinja's dictsort: by key without regard to (ASCII) case.
std::vector<std::pair<std::string, const nlohmann::ordered_json*>> sorted_entries(const nlohmann::ordered_json& object);

// Gemma 4's notation of an argument: strings between <|"|>, unquoted keys unless `quote_keys`.
// `null_text` is how null is written ("None" before the July edition).
void write_argument(const nlohmann::ordered_json& value, bool quote_keys, const char* null_text, SpanWriter& out);

}  // namespace qat
