#include "data/record_fields.h"

#include <nlohmann/json.hpp>

#include "core/comma_list.h"
#include "core/error.h"
#include "data/utf8.h"

namespace qat {

using nlohmann::ordered_json;

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

const char* first_of(const ordered_json& line, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (has(line, name)) return name;
  }
  fail("none of the fields ", comma_list(names), " is there");
}

}  // namespace qat
